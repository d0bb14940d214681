"""Norm and projections of embedded tokens are looked up. That this is exact is in test_algebra.py."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.export.passes.algebra import token_tables
from perceiver_deploy.export.passes.algebra.token_tables import LookUpTokens
from perceiver_deploy.export.trace import trace_model
from tests.helpers.factories import perturbed_model, relative_l2, small_config
from tests.helpers.graph_passes import fired
from tests.unit.export.passes.test_algebra import in_float64, run

RNG = np.random.default_rng(0)
VOCABULARY, POSITIONS, CHANNELS = 11, 7, 6
WEIGHTS = {
    "embeddings": RNG.normal(size=(VOCABULARY, CHANNELS)),
    "positions": RNG.normal(size=(POSITIONS, CHANNELS)),
    "scale": RNG.normal(size=CHANNELS),
    "shift": RNG.normal(size=CHANNELS),
    "weight": RNG.normal(size=(CHANNELS, 5)),
    "bias": RNG.normal(size=5),
}


def graph(*, sliced=True, biased=True, read_elsewhere=False, epsilon=1e-12, **weights):
    node = helper.make_node
    integers = {"zero": [0], "one": [1]}
    constants = [numpy_helper.from_array(array, name) for name, array in {**WEIGHTS, **weights}.items()]
    constants += [numpy_helper.from_array(np.array(value), name) for name, value in integers.items()]
    nodes = [
        node("Gather", ["embeddings", "ids"], ["embedded"]),
        node("Shape", ["ids"], ["length"], start=1, end=2),
        node("Slice", ["positions", "zero", "length", "zero", "one"], ["picked"]),
        node("Add", ["embedded", "picked" if sliced else "positions"], ["tokens"]),
        node("LayerNormalization", ["tokens", "scale", "shift"], ["normed"], epsilon=epsilon),
        node("MatMul", ["normed", "weight"], ["product"]),
        node("Add", ["product", "bias"], ["sum"]),
        node("Identity", ["sum" if biased else "product"], ["result"]),
        node("Identity", ["normed" if read_elsewhere else "tokens"], ["other"]),
    ]
    length = "length" if sliced else POSITIONS
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["batch", length, channels])
        for name, channels in (("result", 5), ("other", CHANNELS))
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", length])
    model = helper.make_model(
        helper.make_graph(nodes, "main", [ids], outputs, constants), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 9
    return ir.from_proto(infer_shapes(model))


@pytest.mark.parametrize("sliced", [True, False], ids=["first positions", "all positions"])
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("epsilon", [1e-12, 0.1])
def test_looking_up_is_exact_at_every_length(sliced, biased, epsilon):
    plain, rewritten = (graph(sliced=sliced, biased=biased, epsilon=epsilon) for _ in range(2))
    assert fired(LookUpTokens(), rewritten) == 1
    assert max(map(len, rewritten.graph.initializers)) < 64  # TensorRT takes names of 4096 at most
    for batch, length in [(1, 1), (3, 4), (2, POSITIONS)] if sliced else [(1, POSITIONS), (3, POSITIONS)]:
        inputs = {"ids": RNG.integers(VOCABULARY, size=(batch, length))}
        assert relative_l2(run(rewritten, inputs)["result"], run(plain, inputs)["result"]) <= 1e-13


def test_a_norm_that_is_read_elsewhere_stays():
    assert fired(LookUpTokens(), graph(read_elsewhere=True)) == 0


def test_more_pairs_of_token_and_position_than_are_stored_stay(monkeypatch):
    monkeypatch.setattr(token_tables, "MOST_PAIRS", VOCABULARY * POSITIONS - 1)
    assert fired(LookUpTokens(), graph()) == 0


def test_positions_that_are_one_row_for_all_stay():
    assert fired(LookUpTokens(), graph(positions=RNG.normal(size=CHANNELS), sliced=False)) == 0


@pytest.mark.parametrize("kind", ["masked_lm", "text_classification"])
def test_keys_and_values_of_texts_take_no_product_any_more(kind):
    model = perturbed_model(small_config(kind))
    traced = in_float64(trace_model(model, model.signature, GraphOptions()))
    products = [node.name for node in traced.graph if node.op_type in ("MatMul", "Gemm")]
    assert products
    assert not [
        name for name in products if name.startswith(("encoder.cross_attention.key", "encoder.cross_attention.value"))
    ]
