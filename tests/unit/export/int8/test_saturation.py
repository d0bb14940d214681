"""Weights under the rule: no sum of two products in 16 bits overflows, whatever the activations are."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from perceiver_deploy.errors import ExportError
from perceiver_deploy.export.int8.quantize import quantize_model
from perceiver_deploy.export.int8.saturation import (
    MOST_NEIGHBOURS,
    find_saturation,
    full_scales,
    round_weight,
    safe_scales,
    saturating_channels,
    stored_weights,
)

INT16 = np.iinfo(np.int16)


def worst_sums(levels):
    """The largest and the least a0 w0 + a1 w1 of neighbouring weights over all activations in 0..255."""
    products = 255 * levels.astype(np.int64)
    most, least = np.maximum(products, 0), np.minimum(products, 0)
    return (most[:-1] + most[1:]).max(initial=0), (least[:-1] + least[1:]).min(initial=0)


@settings(max_examples=200, deadline=None)
@given(
    inputs=st.integers(1, 70),
    channels=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    exponent=st.integers(-30, 30),
    kind=st.sampled_from(["normal", "uniform", "heavy", "constant", "sparse"]),
)
def test_no_sum_of_two_neighbours_overflows_for_any_weight_and_any_activations(inputs, channels, seed, exponent, kind):
    rng = np.random.default_rng(seed)
    size = (inputs, channels)
    weight = {
        "normal": lambda: rng.standard_normal(size),
        "uniform": lambda: rng.uniform(-1, 1, size),
        "heavy": lambda: rng.standard_cauchy(size),
        "constant": lambda: np.ones(size),
        "sparse": lambda: rng.standard_normal(size) * (rng.random(size) < 0.2),
    }[kind]()
    weight = (weight * 2.0**exponent).astype(np.float32)
    scales = safe_scales(weight)
    levels = round_weight(weight, scales)
    most, least = worst_sums(levels)
    assert most <= INT16.max
    assert least >= INT16.min
    assert not saturating_channels(levels).any()
    assert (scales <= full_scales(weight) * 2).all()  # never worse than weights in seven bits
    assert np.abs(levels * scales - weight).max(initial=0) <= scales.max() / 2 * 1.001


def test_the_limit_is_the_largest_that_16_bits_hold():
    assert 255 * MOST_NEIGHBOURS <= INT16.max < 255 * (MOST_NEIGHBOURS + 1)


def test_normal_weights_take_scales_that_are_about_14_tenths_and_lose_3_db():
    weight = np.random.default_rng(0).standard_normal((512, 256)).astype(np.float32)
    error = {
        scales: np.linalg.norm(round_weight(weight, scales(weight)) * scales(weight) - weight)
        for scales in (full_scales, safe_scales)
    }
    assert 1.2 < (safe_scales(weight) / full_scales(weight)).mean() < 1.5
    assert 2 < 20 * np.log10(error[safe_scales] / error[full_scales]) < 4
    assert saturating_channels(round_weight(weight, full_scales(weight))).mean() > 0.9


def test_opposite_signs_and_a_single_input_need_no_larger_scale():
    alternating = np.array([[1.0], [-1.0], [1.0], [-1.0]], np.float32)
    for weight in (alternating, np.array([[3.0]], np.float32)):
        assert safe_scales(weight) == full_scales(weight)


def test_a_channel_of_zeros_has_a_scale():
    weight = np.zeros((4, 2), np.float32)
    assert (safe_scales(weight) == 1).all()
    assert not round_weight(weight, safe_scales(weight)).any()


def test_weights_that_are_not_finite_have_none():
    with pytest.raises(ExportError, match="not finite"):
        safe_scales(np.full((3, 2), np.inf, np.float32))


@pytest.fixture
def graph():
    """y = Gemm(x B, C) and s = y (x B)': two weights, C stored transposed, and a product of activations."""
    rng = np.random.default_rng(0)
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "b"], ["h"], name="first/MatMul"),
            helper.make_node("Gemm", ["h", "c"], ["y"], name="second/Gemm", transB=1),
            helper.make_node("Transpose", ["h"], ["t"], name="scores/Transpose"),
            helper.make_node("MatMul", ["y", "t"], ["s"], name="scores/MatMul"),
        ],
        "g",
        [info("x", TensorProto.FLOAT, [3, 8])],
        [info("s", TensorProto.FLOAT, [3, 3])],
        [
            numpy_helper.from_array(rng.standard_normal((8, 7)).astype(np.float32), "b"),
            numpy_helper.from_array(rng.standard_normal((7, 7)).astype(np.float32), "c"),
        ],
        value_info=[info(name, TensorProto.FLOAT, [3, 7]) for name in "hy"] + [info("t", TensorProto.FLOAT, [7, 3])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return lambda: ir.from_proto(model)


RANGES = {"x": (-3.0, 3.0), "h": (-9.0, 9.0), "y": (-30.0, 30.0), "t": (-9.0, 9.0)}


@pytest.mark.parametrize("unsigned", [False, True], ids=["signed", "unsigned"])
def test_a_quantised_graph_keeps_the_rule_and_says_so(graph, unsigned):
    quantized, report = quantize_model(graph(), RANGES, unsigned=unsigned)
    assert report.saturation.safe
    assert report.saturation.activations == ("scores/MatMul",)
    assert any(line.startswith("no sum with a weight can saturate, on any processor; 1 ") for line in report.lines())
    assert len([*stored_weights(quantized)]) == 2
    for _, weight in stored_weights(quantized):
        assert not saturating_channels(weight.levels).any()


def test_weights_of_all_levels_are_named_with_the_channels_that_can_saturate(graph):
    quantized, report = quantize_model(graph(), RANGES, weight_scales=full_scales)
    assert set(report.saturation.weights) == {"first/MatMul", "second/Gemm"}
    for node, weight in stored_weights(quantized):
        count = saturating_channels(weight.levels).sum()
        assert report.saturation.weights[node.name] == f"{count} of 7 channels"
    assert "sums of 2 weight GEMMs can saturate" in report.saturation.line()


def test_stored_weights_are_the_float_ones_rounded_by_their_scales(graph):
    quantized, _ = quantize_model(graph(), RANGES)
    original = {name: value.const_value.numpy() for name, value in graph().graph.initializers.items()}
    for node, weight in stored_weights(quantized):
        matrix = original["b"] if node.name == "first/MatMul" else original["c"].T
        scales = safe_scales(matrix)
        assert (weight.levels == round_weight(matrix, scales)).all()
        assert (weight.dequantize.inputs[1].const_value.numpy() == scales).all()
    onnx.checker.check_model(ir.to_proto(quantized))


def test_a_weight_of_another_layout_is_not_called_safe(graph):
    quantized, _ = quantize_model(graph(), RANGES)
    node = next(node for node in quantized.graph if node.name == "first/MatMul")
    weight = node.inputs[1]
    perm = ir.node("Transpose", [weight], {"perm": (0, 1)})
    perm.outputs[0].shape, perm.outputs[0].type = weight.shape, weight.type
    quantized.graph.insert_before(node, perm)
    node.replace_input_with(1, perm.outputs[0])
    report = find_saturation(quantized)
    assert list(report.weights) == ["first/MatMul"]
    assert "another layout" in report.weights["first/MatMul"]
    assert not report.safe
