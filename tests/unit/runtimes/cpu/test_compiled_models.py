import shutil

import numpy as np
import pytest

from perceiver_deploy import RuntimeSettings, load
from perceiver_deploy import cache as cache_module
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.runtimes.cpu import compiled_models
from tests.helpers.factories import text_inputs

SIZES = [text_inputs(2, 12), text_inputs(3, 20)]  # beyond small ones, which have a compiled model of their own
"""One token first: see OpenVinoSession."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "cache_directory", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def only_reuse(monkeypatch):
    """After `only_reuse()`, compiling is an error."""

    class Core(compiled_models.openvino.Core):
        def compile_model(self, *arguments):
            raise AssertionError("the model was compiled")

    return lambda: monkeypatch.setattr(compiled_models.openvino, "Core", Core)


def blobs(cache):
    return sorted((cache / "openvino").glob("*"))


def logits(bundle, **settings):
    chosen = RuntimeSettings(threads=1, **settings)
    with load(bundle, "openvino", settings=chosen, allow_nonconforming=True) as session:  # also a changed graph
        return [session.run(inputs)["logits"] for inputs in SIZES]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_that_is_reused_gives_the_bits_of_one_that_was_compiled(shared_bundle, cache, only_reuse):
    bundle = shared_bundle("masked_lm")
    compiled = logits(bundle, keep_compiled=False)
    assert not blobs(cache)
    assert_equal(logits(bundle), compiled)
    assert len(blobs(cache)) == 1
    only_reuse()
    assert_equal(logits(bundle), compiled)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content + b"\0",
        lambda content: b"\0" * len(content),
    ],
    ids=["empty", "cut off", "one bit", "longer", "zeros"],
)
def test_a_damaged_file_is_replaced_and_the_numbers_stay_right(shared_bundle, cache, only_reuse, damage):
    expected = logits(shared_bundle("masked_lm"))
    (blob,) = blobs(cache)
    whole = blob.read_bytes()
    blob.write_bytes(damage(whole))
    assert_equal(logits(shared_bundle("masked_lm")), expected)
    assert len(blobs(cache)) == 1
    only_reuse()
    assert_equal(logits(shared_bundle("masked_lm")), expected)


def test_a_whole_file_that_openvino_refuses_is_replaced(shared_bundle, cache):
    expected = logits(shared_bundle("masked_lm"))
    (blob,) = blobs(cache)
    wrong = compiled_models.COMPILED.path(compiled_models._name(blob.name.split("-")[0], b"no model"))
    blob.unlink()
    wrong.write_bytes(b"no model")
    assert_equal(logits(shared_bundle("masked_lm")), expected)
    assert len(blobs(cache)) == 1
    assert not wrong.exists()


def test_a_cache_that_cannot_be_written_or_read_does_not_keep_a_model_from_loading(shared_bundle, cache):
    expected = logits(shared_bundle("masked_lm"), keep_compiled=False)
    (cache / "openvino").write_text("a file is in the way")
    assert_equal(logits(shared_bundle("masked_lm")), expected)


def test_what_was_compiled_for_other_weights_or_settings_is_not_used(copied_bundle, shared_bundle, cache):
    bundle = copied_bundle("masked_lm")
    before = logits(bundle)
    with load(bundle, "openvino", threads=2):
        assert len(blobs(cache)) == 2
    other = shared_bundle("text_classification")
    with changed_bundle(bundle) as (staging, opened):  # another graph under the same path
        shutil.copy(other / "onnx" / "fp32.onnx", staging.path("onnx/fp32.onnx"))
        staging.finish(opened.manifest.model_copy(update={"stages": Bundle.open(other).manifest.stages}))
    assert logits(bundle)[0].shape != before[0].shape
    assert len(blobs(cache)) == 3


def test_models_used_least_recently_make_room(shared_bundle, cache, monkeypatch):
    kept = {}
    for kind in ("masked_lm", "text_classification", "fourier"):
        load(shared_bundle(kind), "openvino", threads=1).close()
        (kept[kind],) = set(blobs(cache)) - {*kept.values()}
    load(shared_bundle("masked_lm"), "openvino", threads=1).close()  # the others were not used for longer
    total = sum(blob.stat().st_size for blob in kept.values())
    monkeypatch.setattr(compiled_models.COMPILED, "most_bytes", total - 1)
    kept["fourier"].unlink()
    load(shared_bundle("fourier"), "openvino", threads=1).close()
    assert kept["masked_lm"].exists()
    assert not kept["text_classification"].exists()
    assert len(blobs(cache)) == 2
