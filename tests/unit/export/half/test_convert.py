"""Half precision on small graphs: each rule that keeps a node, where casts are, what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from perceiver_deploy.errors import ExportError, InputError
from perceiver_deploy.export.calibration.extremes import Extremes
from perceiver_deploy.export.half.convert import convert_to_half, tensors_to_observe
from perceiver_deploy.export.half.rules import rounding_error, unit_roundoff
from perceiver_deploy.export.int8.quantize import quantize_int8

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
RNG = np.random.default_rng(0)
W = RNG.standard_normal((8, 8)).astype(np.float32)


def graph(nodes, weights=None, outputs=("y",), opset=20, dtype=TensorProto.FLOAT):
    """A graph of `NAME = OPERATOR(INPUTS)` with the input x [batch, 8], an input mask int64 and the weight w [8, 8]."""
    info = helper.make_tensor_value_info
    arrays = {"w": W, **(weights or {})}
    made = helper.make_graph(
        [helper.make_node(op, inputs, [name], name=name, **attributes) for name, op, inputs, attributes in nodes],
        "g",
        [info("x", TensorProto.FLOAT, ["batch", 8]), info("mask", TensorProto.INT64, ["batch", 8])],
        [info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def node(name, op, *inputs, **attributes):
    return name, op, list(inputs), attributes


def convert(model, precision="fp16", **ranges):
    """Converted with every tensor seen between -1 and 1, but those named."""
    seen = dict.fromkeys(tensors_to_observe(model, precision), (-1.0, 1.0)) | ranges
    return convert_to_half(model, precision, seen)


def run(model, x, mask=None):
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {"x": x, "mask": np.ones(x.shape, np.int64) if mask is None else mask}
    return session.run(None, {spec.name: inputs[spec.name] for spec in session.get_inputs()})


def casts(model):
    return [(n.inputs[0].name, n.outputs[0].dtype) for n in model.graph if n.op_type == "Cast"]


PRODUCT = node("h", "MatMul", "x", "w")
SCALAR = np.float32(2)


@pytest.mark.parametrize(
    ("nodes", "weights", "kept"),
    [
        ([PRODUCT, node("y", "Softmax", "h")], {}, {"y": "normalisation: Softmax"}),
        ([PRODUCT, node("y", "LayerNormalization", "h", "s")], {"s": W[0]}, {"y": "normalisation: LayerNormalization"}),
        (
            [node("a", "Mul", "x", "s"), node("b", "Sin", "a"), node("y", "MatMul", "b", "w")],
            {"s": SCALAR},
            {"a": "argument of a steep function: of Sin", "b": "steep function: Sin"},
        ),
        ([PRODUCT, node("y", "Mul", "h", "big")], {"big": np.float32(-1e30)}, {"y": "overflow: big holds 1e+30"}),
        ([PRODUCT, node("y", "MatMul", "h", "v")], {"v": W * 1e5}, {"y": "overflow: v holds"}),
        ([PRODUCT, node("y", "MatMul", "h", "v")], {"v": W * 1e-7}, {"y": "underflow: v would be off by"}),
        (
            [PRODUCT, node("y", "Add", "h", "eps")],
            {"eps": np.float32(1e-12)},
            {"y": "underflow: eps would be off by 1"},
        ),
        ([PRODUCT, node("y", "ReduceSum", "h", "axes")], {"axes": np.array([0])}, {"y": "long sum: ReduceSum of any"}),
        ([PRODUCT, node("y", "ReduceSum", "h", "axes")], {"axes": np.array([1])}, {}),
        (
            [PRODUCT, node("y", "Resize", "h", "", "scales", mode="nearest")],
            {"scales": np.array([1, 2], np.float32)},
            {"y": "operator: Resize of opset 20 has no tensor(float16)"},
        ),
        (
            [PRODUCT, node("s", "Shape", "x"), node("c", "ConstantOfShape", "s"), node("y", "Add", "h", "c")],
            {},
            {"c": "position: depends on no data"},
        ),
    ],
)
def test_rule_keeps_a_node_in_float32_and_says_why(nodes, weights, kept):
    model = graph(nodes, weights)
    found = convert(model)
    assert found.keys() == kept.keys()
    for name, reason in kept.items():
        assert found[name].startswith(reason)
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    (reference,), (result,) = run(graph(nodes, weights), x), run(model, x)
    assert result.dtype == np.float32
    # sums of at most 8 terms and one or two roundings of 2^-11 each, at the scale of the largest result
    np.testing.assert_allclose(result, reference, atol=16 * unit_roundoff(HALF) * np.abs(reference).max())


@pytest.mark.parametrize(
    ("ranges", "part"),
    [
        ((-1.0, 65504.0), "was seen at 6.6e+04, 8 times that is beyond 65504"),
        ((-9000.0, 1.0), "was seen at 9e+03, 8 times"),
        ((0.0, 1e-5), "was seen at 1e-05 at most, too small"),
        ((-8000.0, 8000.0), None),
        ((0.0, 0.0), None),
    ],
)
def test_range_near_the_end_of_fp16_keeps_what_makes_it_and_what_reads_it(ranges, part):
    model = graph([PRODUCT, node("r", "Relu", "h"), node("y", "MatMul", "r", "w")])
    kept = convert(model, h=ranges)
    assert set(kept) == (set() if part is None else {"h", "r"})
    assert all(part in reason for reason in kept.values())


def test_moved_tensor_has_the_range_of_where_it_comes_from():
    nodes = [PRODUCT, node("t", "Transpose", "h"), node("y", "MatMul", "t", "v"), node("z", "MatMul", "x", "w")]
    model = graph(nodes, {"v": W[:3]}, outputs=("y", "z"))
    model.graph.inputs[0].shape = ir.Shape([3, 8])
    kept = convert(model, h=(0.0, 1e5))
    assert set(kept) == {"h", "t", "y"}


def test_bf16_needs_no_ranges_and_keeps_what_the_opset_does_not_have():
    nodes = [node("u", "Unsqueeze", "x", "axes"), node("y", "Conv", "u", "k")]
    weights = {"axes": np.array([1]), "k": W[None, :2]}
    model = graph([PRODUCT, *nodes, node("z", "Relu", "h")], {**weights}, outputs=("y", "z"))
    model.graph.inputs[0].shape = ir.Shape([8, 8])
    assert tensors_to_observe(model, "bf16") == []
    kept = convert(model, "bf16")
    assert kept["y"] == "operator: Conv of opset 20 has no tensor(bfloat16)"
    assert "h" not in kept


def test_mask_that_overflows_stays_exact_though_the_data_never_used_it():
    nodes = [
        PRODUCT,
        node("none", "Equal", "mask", "zero"),
        node("bias", "Where", "none", "masked", "free"),
        node("scores", "Add", "h", "bias"),
        node("y", "Softmax", "scores"),
    ]
    weights = {"zero": np.int64(0), "masked": np.float32(-1e30), "free": np.float32(0)}
    model = graph(nodes, weights)
    kept = convert(model, bias=(0.0, 0.0), scores=(-1.0, 1.0))
    assert {name for name, reason in kept.items() if reason.startswith("overflow: masked")} == {"bias", "scores"}
    mask = np.zeros((2, 8), np.int64)
    mask[1, :3] = 1
    (probabilities,) = run(model, np.ones((2, 8), np.float32), mask)
    np.testing.assert_allclose(probabilities[0], 1 / 8, rtol=1e-6)
    assert (probabilities[1, 3:] == 0).all()


def test_tensor_is_cast_once_where_several_nodes_read_it_and_outputs_keep_their_names():
    nodes = [
        node("n", "LayerNormalization", "x", "s"),
        node("q", "MatMul", "n", "w"),
        node("k", "MatMul", "n", "w"),
        node("y", "Softmax", "q"),
        node("z", "LayerNormalization", "q", "s"),
    ]
    model = graph(nodes, {"s": W[0]}, outputs=("y", "z", "k"))
    assert set(convert(model)) == {"n", "y", "z"}
    assert casts(model) == [("n", HALF), ("q", FLOAT), ("k.fp16", FLOAT)]
    assert [(value.name, value.dtype) for value in model.graph.outputs] == [(n, FLOAT) for n in ("y", "z", "k")]


def test_what_is_moved_from_float32_to_float32_is_not_cast_to_half_on_its_way():
    nodes = [
        node("n", "Softmax", "x"),
        node("t", "Transpose", "n"),
        node("y", "Softmax", "t"),
        node("z", "MatMul", "n", "w"),
    ]
    model = graph(nodes, outputs=("y", "z"))
    kept = convert(model)
    assert kept["t"] == "moved: between nodes in float32"
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(model, x)[0], run(graph(nodes, outputs=("y", "z")), x)[0])


def test_integers_become_half_at_once_and_shapes_are_read_without_a_cast():
    nodes = [
        PRODUCT,
        node("m", "Cast", "mask", to=TensorProto.FLOAT),
        node("y", "Mul", "h", "m"),
        node("shape", "Shape", "x"),
    ]
    model = graph(nodes, outputs=("y",))
    model.graph.outputs.append(next(n for n in model.graph if n.name == "shape").outputs[0])
    convert(model)
    assert casts(model) == [("x", HALF), ("mask", HALF), ("y.fp16", FLOAT)]


def test_weights_are_stored_in_half_and_in_float32_only_where_a_kept_node_reads_them():
    nodes = [PRODUCT, node("g", "LayerNormalization", "h", "s"), node("y", "Mul", "g", "s")]
    model = graph(nodes, {"s": W[0]})
    convert(model)
    stored = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert stored == {"w.fp16": HALF, "s": FLOAT, "s.fp16": HALF}
    np.testing.assert_array_equal(model.graph.initializers["w.fp16"].const_value.numpy(), W.astype(np.float16))


def test_graph_of_which_no_product_can_be_in_half_is_an_error():
    with pytest.raises(ExportError, match=r"No product of matrices can be computed in fp16: activation range.*fp32"):
        convert(graph([node("y", "MatMul", "x", "w")]), x=(0.0, 1e6))


def test_tensor_without_a_range_is_an_error_that_names_it():
    with pytest.raises(ExportError, match="Tensor h has no range"):
        convert_to_half(graph([PRODUCT, node("y", "Relu", "h")]), "fp16", {"x": (0.0, 1.0), "y": (0.0, 1.0)})


def test_int8_of_a_graph_in_half_is_refused(tmp_path):
    model = graph([PRODUCT, node("y", "Relu", "h")])
    convert(model)
    ir.save(model, tmp_path / "half.onnx")
    with pytest.raises(ExportError, match=r"half precision.*float32 graph"):
        quantize_int8(tmp_path / "half.onnx", tmp_path / "out.onnx", {"x.fp16": (-1.0, 1.0)})


def test_extremes_are_exact_over_batches_go_on_from_what_was_kept_and_refuse_nan():
    extremes, other = Extremes(), Extremes()
    extremes.add(np.array([3.0, 5.0], np.float32))
    other.restore(extremes.to_array())
    other.add(np.array([[4.0]], np.float32))
    other.add(np.zeros((0, 2), np.float32))
    assert (other.low, other.high) == (3.0, 5.0)
    with pytest.raises(InputError, match="not finite"):
        other.add(np.array([np.nan], np.float32))


@pytest.mark.parametrize("dtype", [HALF, ir.DataType.BFLOAT16])
def test_rounding_of_normal_numbers_stays_within_the_unit_roundoff(dtype):
    assert 0 < rounding_error(RNG.standard_normal(1000).astype(np.float32), dtype) < unit_roundoff(dtype)
