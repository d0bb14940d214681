"""The exact reference: what a graph says, with every rounding and nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from perceiver_deploy.export.exact import exact_options, nudge, state_roundings, write_exact

HALVES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.fixture
def half_graph():
    """y = float(half(x) + w) * half(x)), typed in half."""

    def make(half):
        info = helper.make_tensor_value_info
        made = helper.make_graph(
            [
                helper.make_node("Cast", ["x"], ["h"], to=half),
                helper.make_node("Add", ["h", "w"], ["a"]),
                helper.make_node("Mul", ["a", "h"], ["m"]),
                helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
            ],
            "g",
            [info("x", TensorProto.FLOAT, ["n", 5])],
            [info("y", TensorProto.FLOAT, ["n", 5])],
            [helper.make_tensor("w", half, [5], [0.1, -3.3, 7.7, 100.1, 1e-3])],
            value_info=[info(name, half, ["n", 5]) for name in "ham"],
        )
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    return make


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("rows", [1, 3])
def test_every_rounding_to_half_is_computed_as_onnx_defines_it(half, rows, half_graph):
    model = half_graph(half)
    x = {"x": np.random.default_rng(0).standard_normal((rows, 5)).astype(np.float32)}
    wanted = ReferenceEvaluator(model).run(None, x)[0]
    rewritten = ir.from_proto(model)
    assert state_roundings(rewritten) == 3
    session = onnxruntime.InferenceSession(ir.to_proto(rewritten).SerializeToString(), exact_options())
    assert (session.run(None, x)[0] == wanted).all()


def test_a_float32_graph_has_no_rounding_to_state(shared_bundle):
    assert state_roundings(ir.load(shared_bundle("fourier") / "onnx/fp32.onnx")) == 0


@pytest.fixture
def quantized_graph(tmp_path):
    """y = DQ(Q(x)) with a scale of 0.1."""
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="dq"),
        ],
        "g",
        [info("x", TensorProto.FLOAT, ["n"])],
        [info("y", TensorProto.FLOAT, ["n"])],
        [
            numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
            numpy_helper.from_array(np.array(0, np.int8), "zero"),
        ],
    )
    path = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def run(path, x):
    return onnxruntime.InferenceSession(str(path), exact_options()).run(None, {"x": x})[0]


def test_q_and_dq_round_half_to_even_and_saturate(quantized_graph, tmp_path):
    assert write_exact(quantized_graph, tmp_path / "exact.onnx") == 0
    x = np.array([0.05, 0.15, 0.249, -0.05, 12.7, 99.0, -99.0], np.float32)
    levels = np.clip(np.rint(x / np.float32(0.1)), -128, 127)
    assert (run(tmp_path / "exact.onnx", x) == (levels * np.float32(0.1)).astype(np.float32)).all()


def test_a_nudge_moves_only_values_beside_the_middle_of_two_levels(quantized_graph, tmp_path):
    x = np.array([0.1, 0.25, 0.35, 0.61], np.float32)
    x[1] = np.nextafter(np.float32(0.25), np.float32(1))  # just above the middle of levels 2 and 3
    seen = set()
    for seed in range(8):
        assert write_exact(quantized_graph, tmp_path / "nudged.onnx", seed) == 1
        found = run(tmp_path / "nudged.onnx", x)
        assert found[[0, 3]] == pytest.approx([0.1, 0.6], abs=1e-6)
        seen.add(round(float(found[1]), 3))
    assert seen == {0.2, 0.3}


def test_nudging_is_seeded_and_leaves_the_scale_of_dequantisation(quantized_graph):
    first, second = (ir.load(quantized_graph) for _ in range(2))
    assert nudge(first, 3) == nudge(second, 3) == 1
    scales = [[node.inputs[1].const_value.numpy() for node in model.graph] for model in (first, second)]
    assert scales[0] == scales[1]
    assert scales[0][0] != np.float32(0.1)
    assert scales[0][1] == np.float32(0.1)
