"""INT8: one explicit Q/DQ graph, placed by onnxruntime's quantiser at ranges of our own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from perceiver_deploy.errors import ExportError, requires
from perceiver_deploy.export.graph.files import external_above, write_graph
from perceiver_deploy.export.int8.pair_placement import hoist_pairs
from perceiver_deploy.export.int8.report import (
    QuantizationReport,
    count_quantized,
    is_weight,
    require_share,
)
from perceiver_deploy.export.int8.rules import GEMMS, NOTHING_LOST, gemms, left_in_float32
from perceiver_deploy.export.int8.saturation import WeightScales, round_weight, safe_scales, stored_weights
from perceiver_deploy.export.passes.driver import run_pass
from perceiver_deploy.export.passes.tidy.ranks import KeepRanks

with requires("cpu", "Quantising"):
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import DEQUANT_OUTPUT_SUFFIX

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_LEAST, _MOST = 255 * float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max) / 2
"""Magnitudes of a range whose scale float32 holds, without being subnormal."""
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_SHAPES_KNOWN = {"onnx.infer": "onnxruntime.quant"}
"""Metadata by which the quantiser knows that it need not infer shapes: an exported graph has them."""


def ranged_tensors(model: ir.Model, keep: Collection[str] = (), lost: Mapping[str, float] = NOTHING_LOST) -> list[str]:
    """Names of the tensors whose ranges `quantize_int8` needs: what GEMMs take that is not stored."""
    left = left_in_float32(model, keep, lost)
    operands = (value for node in gemms(model) if node.name not in left for value in node.inputs[:2])
    return list(dict.fromkeys(str(value.name) for value in operands if value and not value.is_initializer()))


def quantize_int8(
    source: Path,
    target: Path,
    thresholds: Mapping[str, tuple[float, float]],
    *,
    keep: Collection[str] = (),
    lost: Mapping[str, float] = NOTHING_LOST,
    unsigned: bool = False,
    weight_scales: WeightScales = safe_scales,
) -> QuantizationReport:
    """Write an INT8 graph: activations a tensor, weights symmetric a channel, nothing else.

    Both inputs of every MatMul and Gemm get Q/DQ pairs, as TensorRT, OpenVINO and onnxruntime read them; their outputs
    and biases stay float32. Weights are kept in a file of their own where the source's are.

    Args:
        source: a float32 graph.
        target: where to write.
        thresholds: range (low, high) of each of `ranged_tensors`; beyond it values saturate.
        keep: names of GEMMs that stay float32.
        lost: of tensors, the share that INT8 loses. What weights values by probabilities of which it loses more than
            `MOST_LOST` stays float32.
        unsigned: weight GEMMs read uint8 activations with a zero point, which TensorRT does not read.
        weight_scales: gives the scale of each channel of a weight; by default one with which no sum can saturate.

    Raises:
        ExportError: a graph that is quantised already, a missing or unusable range, a name in `keep` that no GEMM has,
            or less than 90 % of the FLOPs of weight GEMMs quantised without a reason.
    """
    quantized, report = quantize_model(
        ir.load(source), thresholds, keep=keep, lost=lost, unsigned=unsigned, weight_scales=weight_scales
    )
    write_graph(quantized, target, external_above(source))
    return report


def quantize_model(
    model: ir.Model,
    thresholds: Mapping[str, tuple[float, float]],
    *,
    keep: Collection[str] = (),
    lost: Mapping[str, float] = NOTHING_LOST,
    unsigned: bool = False,
    weight_scales: WeightScales = safe_scales,
) -> tuple[ir.Model, QuantizationReport]:
    """`quantize_int8` in memory: another model, and the report."""
    if any(node.op_type in (_QUANTIZE, _DEQUANTIZE) for node in model.graph.all_nodes()):
        raise ExportError("The graph is quantised already. Quantise the float32 graph that it was made of.")
    if any(value.dtype in _HALF for value in model.graph.initializers.values()):
        raise ExportError("The graph is in half precision. Quantise the float32 graph that it was made of.")
    left = left_in_float32(model, keep, lost)
    for name in ranged_tensors(model, keep, lost):
        _require_range(name, thresholds)
    quantized = _with_pairs(model, thresholds, left, unsigned=unsigned)
    run_pass(quantized, KeepRanks())  # of graphs that were exported before this was done there
    for _, weight in stored_weights(quantized):
        original = _float_weight(weight.dequantize, model).const_value
        assert original is not None
        matrix = original.numpy().T if weight.transposed else original.numpy()
        scales = weight_scales(matrix)
        weight.store(round_weight(matrix, scales), scales)
    report = count_quantized(quantized, left)
    require_share(report)
    return quantized, report


def _require_range(name: str, thresholds: Mapping[str, tuple[float, float]]) -> None:
    """A range that gives a scale: it was seen, is finite, and is not zero alone."""
    if name not in thresholds:
        raise ExportError(
            f"Tensor {name} has no range: it was never seen. Measure ranges on the graph that is quantised: "
            "perceiver-deploy convert BUNDLE --precision int8 --calibration DATA, without --ranges."
        )
    low, high = thresholds[name]
    usable = _LEAST <= max(abs(low), abs(high)) <= _MOST  # false of a NaN
    if not (usable and low <= high):
        raise ExportError(
            f"Tensor {name} has the range {low:g} to {high:g}, from which no scale follows; expected numbers that "
            f"float32 holds, one of which is {_LEAST:.1g} or more away from 0. "
            "Calibrate on data that the tensor answers to."
        )


def _with_pairs(
    model: ir.Model, thresholds: Mapping[str, tuple[float, float]], left: Mapping[str, str], *, unsigned: bool
) -> ir.Model:
    """The graph with Q/DQ pairs on what its GEMMs read, except those in `left`."""
    proto = ir.to_proto(ir.external_data.load_to_model(model))
    onnx.helper.set_model_props(proto, {**model.metadata_props, **_SHAPES_KNOWN})
    ranges = {name: (np.float32(low), np.float32(high)) for name, (low, high) in thresholds.items()}
    quantizer = QDQQuantizer(
        proto,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if unsigned else QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=list(left),
        op_types_to_quantize=list(GEMMS),
        extra_options={
            "ActivationSymmetric": not unsigned,
            "WeightSymmetric": True,
            "QuantizeBias": False,  # TensorRT reads no quantised bias
            "OpTypesToExcludeOutputQuantization": list(GEMMS),
            "TensorQuantOverrides": _signed(model, left) if unsigned else {},
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized = ir.from_proto(quantizer.model.model)
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    for name in _SHAPES_KNOWN:
        del quantized.metadata_props[name]
    for node in list(quantized.graph):
        if node.op_type == _DEQUANTIZE:
            _describe_pair(node)
            _give_others_the_original(node, model, left)
    hoist_pairs(quantized)
    return quantized


def _signed(model: ir.Model, left: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """What the products of attentions read stays symmetric int8: OpenVINO fuses an attention in int8 only then."""
    products = [node for node in gemms(model) if node.name not in left and not any(map(is_weight, node.inputs[1:2]))]
    operands = {str(value.name) for node in products for value in node.inputs if value and not value.is_initializer()}
    return {name: [{"quant_type": QuantType.QInt8, "symmetric": True}] for name in operands}


def _describe_pair(dequantize: ir.Node) -> None:
    """Write down the shapes and types that the quantiser leaves out."""
    stored, zero, result = dequantize.inputs[0], dequantize.inputs[2], dequantize.outputs[0]
    assert stored is not None
    assert zero is not None
    if (quantize := stored.producer()) is not None and (value := quantize.inputs[0]) is not None:
        if value.shape is None:  # the value is an output of the graph, whose name and shape the result was given
            value.shape, value.type = result.shape, result.type
        stored.shape, stored.type = value.shape, zero.type
    result.shape, result.type = stored.shape, ir.TensorType(ir.DataType.FLOAT)


def _give_others_the_original(dequantize: ir.Node, model: ir.Model, left: Mapping[str, str]) -> None:
    """Let only quantised GEMMs read a quantised value: all else reads the float one, and so do the graph's outputs."""
    value, graph, stored = dequantize.outputs[0], dequantize.graph, dequantize.inputs[0]
    assert isinstance(graph, ir.Graph)
    others = [(use.node, use.idx) for use in value.uses() if not _reads_quantized(use.node, use.idx, left)]
    if not others and not value.is_graph_output():
        return
    if stored is not None and (quantize := stored.producer()) is not None:
        original = quantize.inputs[0]
        assert original is not None
        if value.is_graph_output():
            value.name, original.name = f"{value.name}{DEQUANT_OUTPUT_SUFFIX}", value.name
            graph.outputs[graph.outputs.index(value)] = original
    else:
        weight = _float_weight(dequantize, model)
        original = ir.Value(name=weight.name, shape=weight.shape, type=weight.type, const_value=weight.const_value)
        graph.register_initializer(original)
    for node, index in others:
        node.replace_input_with(index, original)


def _float_weight(dequantize: ir.Node, model: ir.Model) -> ir.Value:
    """What a stored value was before it was quantised."""
    return model.graph.initializers[str(dequantize.outputs[0].name).removesuffix(DEQUANT_OUTPUT_SUFFIX)]


def _reads_quantized(node: ir.Node, index: int, left: Mapping[str, str]) -> bool:
    return node.op_type in GEMMS and node.name not in left and index < 2
