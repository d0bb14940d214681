"""OpenVINO with static shapes: a compiled model for each combination of sizes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from perceiver_deploy import RuntimeSettings, load
from perceiver_deploy import cache as cache_module
from perceiver_deploy.errors import InputError
from perceiver_deploy.runtimes.cpu import compiled_models, openvino
from tests.helpers.factories import image_inputs, relative_l2, text_inputs

SIZES = [(2, 16), (1, 1), (3, 11), (1, 32), (2, 16)]
STATIC = RuntimeSettings(threads=1, static_shapes=True, keep_compiled=False)


@pytest.fixture
def compiled(monkeypatch):
    """Shapes that were compiled, in order."""
    found = []

    def compile_model(file, shapes, options):
        found.append(None if shapes is None else dict(shapes))
        return compiled_models.compile_model(file, shapes, options)

    monkeypatch.setattr(openvino, "compile_model", compile_model)
    return found


def test_every_size_gives_what_dynamic_shapes_give(shared_bundle):
    bundle = shared_bundle("masked_lm")
    with load(bundle, "openvino", settings=STATIC) as static, load(bundle, "openvino", threads=1) as dynamic:
        for batch, length in SIZES:
            inputs = text_inputs(batch, length)
            assert relative_l2(static.run(inputs)["logits"], dynamic.run(inputs)["logits"]) < 1e-6


def test_a_row_without_tokens_gives_what_dynamic_shapes_give(shared_bundle):
    inputs = text_inputs(2, 16)
    inputs["attention_mask"][1] = 0
    bundle = shared_bundle("masked_lm")
    with load(bundle, "openvino", settings=STATIC) as static, load(bundle, "openvino", threads=1) as dynamic:
        assert relative_l2(static.run(inputs)["logits"], dynamic.run(inputs)["logits"]) < 1e-6


def test_the_usual_size_is_compiled_when_the_session_opens_and_each_other_once(shared_bundle, compiled):
    with load(shared_bundle("fourier"), "openvino", settings=STATIC) as session:
        usual = tuple(session.axes[name].opt if isinstance(name, str) else name for name in session.inputs[0].shape)
        assert compiled == [{"pixel_values": usual}]
        for _ in range(2):
            session.run(image_inputs(2, 5, 7))
    assert compiled == [{"pixel_values": usual}, {"pixel_values": (2, 3, 5, 7)}]


def test_those_used_least_recently_make_room(shared_bundle, compiled, monkeypatch):
    monkeypatch.setattr(openvino, "MOST_SHAPES", 2)
    with load(shared_bundle("fourier"), "openvino", settings=STATIC) as session:
        for height in (5, 6, 5, 7, 5, 6):  # 6 makes room for 7
            session.run(image_inputs(1, height, 7))
    heights = [shapes["pixel_values"][2] for shapes in compiled[1:]]
    assert heights == [5, 6, 7, 6]


def test_threads_that_meet_a_new_size_together_compile_it_once(shared_bundle, compiled):
    start = threading.Barrier(8)
    inputs = image_inputs(1, 9, 4)

    def run(session):
        start.wait()
        return session.run(inputs)["logits"]

    with load(shared_bundle("fourier"), "openvino", settings=STATIC) as session:
        with ThreadPoolExecutor(8) as pool:
            first, *others = pool.map(run, [session] * 8)
        assert len(compiled) == 2
        for other in others:
            np.testing.assert_array_equal(other, first)


def test_an_input_that_is_refused_is_not_compiled_for(shared_bundle, compiled):
    with load(shared_bundle("fourier"), "openvino", settings=STATIC) as session:
        with pytest.raises(InputError):
            session.run({"pixel_values": np.zeros((1, 3, 0, 4), np.float32)})
        assert len(compiled) == 1


def test_what_was_compiled_is_kept_by_shape_in_the_cache(shared_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "cache_directory", lambda: tmp_path)
    settings = RuntimeSettings(threads=1, static_shapes=True)
    outputs = []
    for _ in range(2):
        with load(shared_bundle("fourier"), "openvino", settings=settings) as session:
            outputs.append(session.run(image_inputs(2, 5, 7))["logits"])
    assert len([*tmp_path.rglob("*.blob")]) == 2
    np.testing.assert_array_equal(*outputs)
