"""Encoder and decoder as graphs of their own: every task gives the numbers of the whole model, in any chunks."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest

from perceiver_deploy import export_model, load, run_in_chunks
from perceiver_deploy.evaluate.grid import Case, make_inputs
from perceiver_deploy.model.config import Semantics
from perceiver_deploy.runtimes.queries import all_queries
from tests.factories import KINDS, perturbed_model, relative_l2, small_config
from tests.task_factories import TASK_CONFIGS

SIZES = [
    {"batch": 2, "frames": 3, "samples": 28, "points": 7, "entities": 5, "queries": 2, "queries_image": 13}
    | {"queries_audio": 4, "length": 9, "height": 6, "width": 8},
    {"batch": 1, "frames": 5, "samples": 40, "points": 12, "entities": 9, "queries": 3, "queries_image": 4}
    | {"queries_audio": 10, "length": 17, "height": 8, "width": 6},
]
IN_OPENVINO = {"optical_flow", "multimodal_autoencoding", "masked_lm", "entities", "fourier"}
CLOSE = 2e-6  # relative L2; float32 sums in another order, a few units in the last place


def configs():
    bare_queries = dataclasses.replace(small_config("masked_lm").decoder, num_queries=None)
    return {
        **{kind: small_config(kind) for kind in KINDS},
        **TASK_CONFIGS,
        "masked_lm, tokens as queries": small_config("masked_lm", decoder=bare_queries),
        "masked_lm, queries not masked": small_config(
            "masked_lm", decoder=bare_queries, semantics=Semantics(masked_queries="attend")
        ),
    }


@pytest.fixture(scope="module", params=list(configs()))
def exported(request, tmp_path_factory):
    """A model and its bundle with all three stages."""
    model = perturbed_model(configs()[request.param])
    path = tmp_path_factory.mktemp("stages") / "bundle"
    export_model(model, path, split="beside", validate=False, weights=False)  # the tests below judge it
    return request.param, model, path


def inputs_of(model, sizes, seed=0):
    case = Case("other", {name: sizes[name] for name in model.signature.axes}, "padded")
    return make_inputs(model.signature, case, None, seed)


def sizes_for(name, index):
    """The convolution takes pictures of 5 pixels and more, a table of positions bounds the learned ones."""
    return SIZES[index]


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert relative_l2(found[name], array) <= CLOSE, name


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_encoding_then_decoding_gives_what_the_whole_model_gives(exported, runtime):
    name, model, path = exported
    if runtime == "openvino" and name not in IN_OPENVINO:
        pytest.skip("tried with a task of each kind of query")
    with load(path, runtime=runtime) as session:
        for sizes in SIZES:
            inputs = inputs_of(model, sizes)
            whole = session.run(inputs)
            assert_same(run_in_chunks(session, inputs), whole)
            assert_same(run_in_chunks(session, inputs, chunk=3), whole)


def test_any_queries_in_any_order_are_answered_as_among_all(exported):
    _name, model, path = exported
    decoder = model.stages["decoder"].stage
    dimensions = {spec.name: spec.shape.index("queries") for spec in decoder.inputs if "queries" in spec.shape}
    if not dimensions:
        pytest.skip("the decoder takes the latents alone, or queries of several kinds")
    inputs = inputs_of(model, SIZES[1])
    with load(path) as session:
        whole = session.run(inputs)
        latents = session.encode({spec.name: inputs[spec.name] for spec in session.stages["encoder"].inputs})
        asked = all_queries(decoder, model.signature.stage, inputs)
        order = np.array([2, 0, 2])
        some = {key: array.take(order, dimensions[key]) if key in dimensions else array for key, array in asked.items()}
        found = session.decode({**latents, **some})
    for spec in decoder.outputs:
        answers = whole[spec.name].reshape(inputs[next(iter(inputs))].shape[0], -1, spec.shape[-1])
        assert relative_l2(found[spec.name], answers[:, order]) <= CLOSE


def test_nodes_are_named_after_the_models_modules(exported):
    _, model, path = exported
    modules = {name for name, _ in model.named_children()}
    for stage, module in (("encoder", "encoder"), ("decoder", "decoder")):
        names = {node.name.split("/")[0].split(".")[0] for node in ir.load(path / f"onnx/fp32.{stage}.onnx").graph}
        assert module in names
        assert names <= modules | {"graph"}
