"""INT8 weights alone: what is stored, what is left and why, and that the function is that of the rounded weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from perceiver_deploy.errors import ExportError
from perceiver_deploy.export.exact import exact_options
from perceiver_deploy.export.int8.saturation import full_scales, round_weight
from perceiver_deploy.export.int8.weights_only import quantize_weights

SIZE = 40


@pytest.fixture
def model():
    """y = (x A A) B' + (x A) S: one weight read twice, one by a Gemm that transposes it, and a small one."""
    rng = np.random.default_rng(0)
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"], name="first/MatMul"),
            helper.make_node("MatMul", ["h", "a"], ["i"], name="again/MatMul"),
            helper.make_node("Gemm", ["i", "b"], ["j"], name="gemm/Gemm", transB=1),
            helper.make_node("MatMul", ["h", "s"], ["k"], name="small/MatMul"),
            helper.make_node("Add", ["j", "k"], ["y"], name="sum/Add"),
        ],
        "g",
        [info("x", TensorProto.FLOAT, ["n", SIZE])],
        [info("y", TensorProto.FLOAT, ["n", 9])],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in {"a": (SIZE, SIZE), "b": (9 * 4, SIZE), "s": (SIZE, 9 * 4)}.items()
        ],
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return lambda: ir.from_proto(proto)


def run(model, x):
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), exact_options())
    return session.run(None, {"x": x})[0]


def test_products_read_the_rounded_weight_of_each_output_channel(model):
    original = {name: value.const_value.numpy() for name, value in model().graph.initializers.items()}
    quantized = model()
    report = quantize_weights(quantized)
    rounded = {}
    for name in "abs":
        matrix = original[name].T if name == "b" else original[name]
        scales = full_scales(matrix)
        rounded[name] = round_weight(matrix, scales).astype(np.float64) * scales
    x = np.random.default_rng(1).standard_normal((3, SIZE)).astype(np.float32)
    h = x @ rounded["a"]
    wanted = h @ rounded["a"] @ rounded["b"] + h @ rounded["s"]
    assert run(quantized, x) == pytest.approx(wanted, rel=1e-4, abs=1e-3)
    assert (report.weights, report.quantized, report.left) == (3, 3, {})
    assert report.share == 1
    assert any("no sum can saturate, on any processor" in line for line in report.lines())


def test_a_weight_that_is_read_twice_is_stored_once(model):
    quantized = model()
    quantize_weights(quantized)
    stored = [value for value in quantized.graph.initializers.values() if value.dtype == ir.DataType.INT8]
    assert sorted(str(value.name) for value in stored) == ["a_int8", "b_transposed_int8", "s_int8"]
    assert not {"a", "b", "s"} & quantized.graph.initializers.keys()


def test_what_is_kept_stays_float32_with_all_that_read_the_weight(model):
    quantized = model()
    report = quantize_weights(quantized, keep=["again/MatMul"])
    assert report.left == dict.fromkeys(("first/MatMul", "again/MatMul"), "kept in float32 on request")
    assert quantized.graph.initializers["a"].dtype == ir.DataType.FLOAT
    with pytest.raises(ExportError, match="no MatMul or Gemm 'other'"):
        quantize_weights(model(), keep=["other"])


def test_a_graph_of_small_weights_is_refused(model):
    small = model()
    for value in small.graph.initializers.values():
        value.const_value = ir.tensor(np.ones((2, 2), np.float32), name=value.name)
    with pytest.raises(ExportError, match="None of the 3 weights can be stored in INT8: a small weight"):
        quantize_weights(small)


def test_a_weight_that_another_operator_reads_too_stays_float32(model):
    shared = model()
    table = shared.graph.initializers["b"]
    first = ir.tensor(np.array([0]), name="first")
    index = ir.Value(name="first", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64), const_value=first)
    shared.graph.register_initializer(index)
    shared.graph.append(ir.node("Gather", [table, index], name="lookup"))
    report = quantize_weights(shared)
    assert report.left == {"gemm/Gemm": "a weight that other operators read too"}
    assert "b" in shared.graph.initializers
    assert report.share < 1


def test_weights_that_are_not_finite_are_refused(model):
    broken = model()
    value = broken.graph.initializers["a"]
    value.const_value = ir.tensor(np.full((SIZE, SIZE), np.nan, np.float32), name="a")
    with pytest.raises(ExportError, match="not finite"):
        quantize_weights(broken)
