"""Placement of Q/DQ pairs: what reads quantised values, what is kept and why, what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from perceiver_deploy.errors import ExportError
from perceiver_deploy.export.int8.quantize import quantize_int8, ranged_tensors

RANGES = {"h": (0.0, 2.0)}


@pytest.fixture
def graph(tmp_path):
    """h = x A; y = h B + h; z = h A: a residual addition, a shared weight, and y and h leave the graph."""
    rng = np.random.default_rng(0)
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"], name="resize/MatMul"),
            helper.make_node("MatMul", ["h", "b"], ["hb"], name="large/MatMul"),
            helper.make_node("Add", ["hb", "h"], ["y"], name="residual/Add"),
            helper.make_node("MatMul", ["h", "a"], ["z"], name="small/MatMul"),
        ],
        "g",
        [info("x", TensorProto.FLOAT, ["batch", 8])],
        [info(name, TensorProto.FLOAT, ["batch", 8]) for name in ("y", "z", "h")],
        [numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), name) for name in ("a", "b")],
        value_info=[info("hb", TensorProto.FLOAT, ["batch", 8])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "graph.onnx")
    return tmp_path / "graph.onnx"


def readers(path):
    """Operators that feed the two operands of each node by name."""
    return {
        node.name: [
            value.producer().op_type if value.producer() else "stored" if value.is_initializer() else "input"
            for value in node.inputs
        ]
        for node in ir.load(path).graph
        if node.op_type in ("MatMul", "Add")
    }


def test_only_quantised_gemms_read_quantised_values(graph, tmp_path):
    report = quantize_int8(graph, tmp_path / "int8.onnx", RANGES)
    assert readers(tmp_path / "int8.onnx") == {
        "resize/MatMul": ["input", "stored"],
        "large/MatMul": ["DequantizeLinear"] * 2,
        "residual/Add": ["MatMul", "MatMul"],
        "small/MatMul": ["DequantizeLinear"] * 2,
    }
    assert (report.weight_gemms, report.quantized) == (3, 2)
    assert report.left == {"resize/MatMul": "resizes raw pixels by whole numbers that float32 holds exactly"}
    assert report.gemm_flops_share == report.flops_share == pytest.approx(2 / 3)
    assert report.left_flops_shares == {"resize/MatMul": pytest.approx(1 / 3)}
    graph_outputs = [value.name for value in ir.load(tmp_path / "int8.onnx").graph.outputs]
    assert graph_outputs == ["y", "z", "h"]


def test_an_output_that_gemms_read_too_leaves_the_graph_as_it_was_computed(graph, tmp_path):
    quantize_int8(graph, tmp_path / "int8.onnx", RANGES)
    import onnxruntime

    x = {"x": np.random.default_rng(1).uniform(-1, 3, (4, 8)).astype(np.float32)}
    before, after = (onnxruntime.InferenceSession(path).run(["h"], x)[0] for path in (graph, tmp_path / "int8.onnx"))
    assert (before == after).all()  # its own MatMul resizes, so it is float


def test_nodes_to_keep_stay_float_and_are_reported(graph, tmp_path):
    report = quantize_int8(graph, tmp_path / "int8.onnx", RANGES, keep=["small/MatMul"])
    assert readers(tmp_path / "int8.onnx")["small/MatMul"] == ["MatMul", "stored"]
    assert report.left["small/MatMul"] == "kept in float32 on request"
    assert ranged_tensors(ir.load(graph), ["small/MatMul", "large/MatMul"]) == []


def test_a_name_to_keep_that_no_gemm_has_is_refused(graph, tmp_path):
    with pytest.raises(ExportError, match=r"no MatMul or Gemm 'residual/Add' to keep .* it has large/MatMul"):
        quantize_int8(graph, tmp_path / "int8.onnx", RANGES, keep=["residual/Add"])


def attention_graph(path):
    """y = softmax(q k) v, with projections before and after it."""
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["q"], name="query"),
            helper.make_node("MatMul", ["q", "k"], ["scores"], name="scores"),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
            helper.make_node("MatMul", ["probabilities", "v"], ["attended"], name="values"),
            helper.make_node("MatMul", ["attended", "w"], ["y"], name="output"),
        ],
        "g",
        [
            info("x", TensorProto.FLOAT, [1, 1, 2, 8]),
            info("k", TensorProto.FLOAT, [1, 1, 8, 3]),
            info("v", TensorProto.FLOAT, [1, 1, 3, 8]),
        ],
        [info("y", TensorProto.FLOAT, [1, 1, 2, 8])],
        [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
        value_info=[
            *(info(name, TensorProto.FLOAT, [1, 1, 2, 8]) for name in ("q", "attended")),
            *(info(name, TensorProto.FLOAT, [1, 1, 2, 3]) for name in ("scores", "probabilities")),
        ],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize(("share", "left"), [(0.049, []), (0.31, ["values"])])
def test_values_weighted_by_probabilities_that_int8_loses_stay_float(tmp_path, share, left):
    path = attention_graph(tmp_path / "graph.onnx")
    ranges = dict.fromkeys(ranged_tensors(ir.load(path)), (-1.0, 1.0))
    shares = {"probabilities": share, "x": 0.9}  # of what is not an attention's, any share may be lost
    report = quantize_int8(path, tmp_path / "int8.onnx", ranges, lost=shares)
    assert list(report.left) == left
    assert all("31% of what its queries attend to" in reason for reason in report.left.values())
    nodes = readers(tmp_path / "int8.onnx")
    assert nodes["values"] == (["Softmax", "input"] if left else ["DequantizeLinear"] * 2)
    assert nodes["scores"] == nodes["output"] == ["DequantizeLinear"] * 2


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "Tensor h has no range: it was never seen"),
        ({"h": (0.0, 0.0)}, "Tensor h has the range 0 to 0, from which no scale follows"),
        ({"h": (0.0, 1e300)}, "Tensor h has the range 0 to 1e\\+300, from which no scale follows"),
        ({"h": (0.0, 1e-320)}, "Tensor h has the range 0 to 9.99989e-321, from which no scale follows"),
        ({"h": (-np.inf, 1.0)}, "Tensor h has the range -inf to 1"),
        ({"h": (2.0, -2.0)}, "Tensor h has the range 2 to -2"),
    ],
)
def test_a_range_that_gives_no_scale_is_an_error_that_names_the_tensor(graph, tmp_path, found, message):
    with pytest.raises(ExportError, match=message):
        quantize_int8(graph, tmp_path / "int8.onnx", found)
    assert not (tmp_path / "int8.onnx").exists()


def test_a_quantised_graph_is_not_quantised_again(graph, tmp_path):
    quantize_int8(graph, tmp_path / "int8.onnx", RANGES)
    with pytest.raises(ExportError, match="quantised already"):
        quantize_int8(tmp_path / "int8.onnx", tmp_path / "twice.onnx", RANGES)


def test_less_than_nine_tenths_without_a_reason_is_an_error(graph, tmp_path, monkeypatch):
    from perceiver_deploy.export.int8 import quantize

    class Forgetful(quantize.QDQQuantizer):
        def should_quantize_node(self, node):
            return node.name != "large/MatMul" and super().should_quantize_node(node)

    monkeypatch.setattr(quantize, "QDQQuantizer", Forgetful)
    with pytest.raises(ExportError, match=r"carry 33.3% .* at least 90%\. Left without a known reason: large/MatMul"):
        quantize_int8(graph, tmp_path / "int8.onnx", RANGES)
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize(("unsigned", "dtype"), [(False, np.int8), (True, np.uint8)])
def test_activations_are_symmetric_int8_or_uint8_with_a_zero_point(graph, tmp_path, unsigned, dtype):
    quantize_int8(graph, tmp_path / "int8.onnx", {"h": (-1.0, 3.0)}, unsigned=unsigned)
    (node,) = [node for node in ir.load(tmp_path / "int8.onnx").graph if node.op_type == "QuantizeLinear"]
    scale, zero_point = (value.const_value.numpy() for value in node.inputs[1:])
    assert zero_point.dtype == dtype
    # 255 levels for -1 to 3, of which 0 is the 64th; or 127 on each side up to 3
    assert zero_point == (64 if unsigned else 0)
    assert scale == pytest.approx(4 / 255 if unsigned else 3 / 127)


def test_unsigned_graphs_read_attention_operands_as_signed(tmp_path):
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["q"], name="projection"),
            helper.make_node("MatMul", ["q", "k"], ["y"], name="scores"),
        ],
        "g",
        [info("x", TensorProto.FLOAT, [2, 8]), info("k", TensorProto.FLOAT, [8, 3])],
        [info("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
        value_info=[info("q", TensorProto.FLOAT, [2, 8])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "graph.onnx")
    quantize_int8(
        tmp_path / "graph.onnx", tmp_path / "int8.onnx", dict.fromkeys(["x", "q", "k"], (-1.0, 2.0)), unsigned=True
    )
    nodes = [node for node in ir.load(tmp_path / "int8.onnx").graph if node.op_type == "QuantizeLinear"]
    assert {node.inputs[0].name: node.inputs[2].dtype for node in nodes} == {
        "x": ir.DataType.UINT8,
        "q": ir.DataType.INT8,
        "k": ir.DataType.INT8,
    }
