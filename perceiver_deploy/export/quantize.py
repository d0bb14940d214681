"""INT8: one explicit Q/DQ graph, placed by onnxruntime's quantiser at ranges of our own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from perceiver_deploy.errors import ExportError, requires
from perceiver_deploy.export.flops import flops_by_node
from perceiver_deploy.export.graph_files import external_above, write_graph
from perceiver_deploy.export.origin import module_of, stated_axes
from perceiver_deploy.export.pair_placement import LAYOUT, hoist_pairs
from perceiver_deploy.manifest import opt_sizes

with requires("cpu", "Quantising"):
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import DEQUANT_OUTPUT_SUFFIX

_GEMMS = ("MatMul", "Gemm")
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_SHAPES_KNOWN = {"onnx.infer": "onnxruntime.quant"}
"""Metadata by which the quantiser knows that it need not infer shapes: an exported graph has them."""

LEAST_SHARE = 0.9
"""Of the FLOPs of weight GEMMs, what must be quantised unless a reason is known for the rest."""
_UNKNOWN = "an operand has no Q/DQ pair"
_KEPT = "kept in float32 on request"
_LEFT = {
    "resize": "resizes raw pixels by whole numbers that float32 holds exactly",
    "outputs": "the head of a modality, whose results may be smaller than the rounding of what all modalities share",
}
"""Modules, by the first part of their names, whose GEMMs stay float32, and why. On the shipped films-autoencoding the
sound, near silence, has an SQNR of -1.9 dB with its head in INT8 and 9.2 dB without; heads are 0.4 % of the FLOPs."""


@dataclass(frozen=True)
class QuantizationReport:
    """Weight GEMMs are MatMul and Gemm nodes with a stored operand; `left` names those not quantised, with the reason.

    It is the second operand of a projection, the first one where a query is stored. The shares are of the FLOPs of
    weight GEMMs, and of all FLOPs, that quantised nodes carry with the axes at their `opt` sizes.
    """

    weight_gemms: int
    quantized: int
    left: dict[str, str]
    gemm_flops_share: float
    flops_share: float

    def lines(self) -> list[str]:
        """For people: what is quantised, and what is not."""
        shares = f"{self.gemm_flops_share:.1%} of their operations, {self.flops_share:.1%} of all"
        first = f"{self.quantized} of {self.weight_gemms} weight GEMMs quantised ({shares})"
        return [first, *(f"not quantised: {name}: {reason}" for name, reason in self.left.items())]


def ranged_tensors(model: ir.Model, keep: Collection[str] = ()) -> list[str]:
    """Names of the tensors whose ranges `quantize_int8` needs: what GEMMs take that is not stored."""
    left = _left_with_reason(model, keep)
    operands = (value for node in _gemms(model) if node.name not in left for value in node.inputs[:2])
    return list(dict.fromkeys(str(value.name) for value in operands if value and not value.is_initializer()))


def quantize_int8(
    source: Path,
    target: Path,
    thresholds: Mapping[str, tuple[float, float]],
    *,
    keep: Collection[str] = (),
    unsigned: bool = False,
) -> QuantizationReport:
    """Write an INT8 graph: activations a tensor, weights symmetric a channel, nothing else.

    Both inputs of every MatMul and Gemm get Q/DQ pairs, as TensorRT, OpenVINO and onnxruntime read them; their outputs
    and biases stay float32. Weights are kept in a file of their own where the source's are.

    Args:
        source: a float32 graph.
        target: where to write.
        thresholds: range (low, high) of each of `ranged_tensors`; beyond it values saturate.
        keep: names of GEMMs that stay float32.
        unsigned: weight GEMMs read uint8 activations with a zero point, which TensorRT does not read.

    Raises:
        ExportError: a graph that is quantised already, a missing or unusable range, a name in `keep` that no GEMM has,
            or less than 90 % of the FLOPs of weight GEMMs quantised without a reason.
    """
    quantized, report = quantize_model(ir.load(source), thresholds, keep=keep, unsigned=unsigned)
    write_graph(quantized, target, external_above(source))
    return report


def quantize_model(
    model: ir.Model,
    thresholds: Mapping[str, tuple[float, float]],
    *,
    keep: Collection[str] = (),
    unsigned: bool = False,
) -> tuple[ir.Model, QuantizationReport]:
    """`quantize_int8` in memory: another model, and the report."""
    if any(node.op_type in (_QUANTIZE, _DEQUANTIZE) for node in model.graph.all_nodes()):
        raise ExportError("The graph is quantised already. Quantise the float32 graph that it was made of.")
    if any(value.dtype in _HALF for value in model.graph.initializers.values()):
        raise ExportError("The graph is in half precision. Quantise the float32 graph that it was made of.")
    left = _left_with_reason(model, keep)
    for name in ranged_tensors(model, keep):
        _require_range(name, thresholds)
    quantized = _with_pairs(model, thresholds, left, unsigned=unsigned)
    report = count_quantized(quantized, left)
    _require_share(report)
    return quantized, report


def count_quantized(model: ir.Model, left: Mapping[str, str] | None = None) -> QuantizationReport:
    """Count the weight GEMMs of a Q/DQ graph that read their weight through DequantizeLinear; `left` has reasons."""
    shapes = [value.shape for value in model.graph.inputs if value.shape is not None]
    ones = {str(size.value): 1 for shape in shapes for size in shape if isinstance(size, ir.SymbolicDim)}
    flops = flops_by_node(model, ones | opt_sizes(stated_axes(model)))  # a graph that is not ours states no axes
    weight_gemms = [node for node in _gemms(model) if any(map(_is_weight, node.inputs[:2]))]
    quantized = {node for node in _gemms(model) if all(map(_is_dequantized, node.inputs[:2]))}
    counted = [node for node in weight_gemms if node in quantized]
    reasons = dict(left or {}) | {
        str(node.name): _UNKNOWN for node in weight_gemms if node not in quantized and node.name not in (left or {})
    }
    return QuantizationReport(
        weight_gemms=len(weight_gemms),
        quantized=len(counted),
        left=reasons,
        gemm_flops_share=_share(flops, counted, weight_gemms),
        flops_share=_share(flops, quantized, flops),
    )


def _share(flops: Mapping[ir.Node, int], part: Collection[ir.Node], whole: Collection[ir.Node]) -> float:
    total = sum(flops[node] for node in whole)
    return sum(flops[node] for node in part) / total if total else 0.0


def _gemms(model: ir.Model) -> Iterator[ir.Node]:
    return (node for node in model.graph if node.op_type in _GEMMS)


def _left_with_reason(model: ir.Model, keep: Collection[str]) -> dict[str, str]:
    """GEMMs that stay float32, and why.

    Raises:
        ExportError: `keep` has a name that no GEMM has.
    """
    names = {str(node.name) for node in _gemms(model)}
    if unknown := sorted(set(keep) - names):
        raise ExportError(
            f"The graph has no MatMul or Gemm {unknown[0]!r} to keep in float32; it has {', '.join(sorted(names))}."
        )
    modules = {str(node.name): module_of(node).partition(".")[0] for node in _gemms(model)}
    left = {name: _LEFT[module] for name, module in modules.items() if module in _LEFT}
    return left | dict.fromkeys(keep, _KEPT)


def _require_range(name: str, thresholds: Mapping[str, tuple[float, float]]) -> None:
    """A range that gives a scale: it was seen, is finite, and is not zero alone."""
    if name not in thresholds:
        raise ExportError(f"Tensor {name} has no range: it was never seen. Calibrate on the graph that is quantised.")
    low, high = thresholds[name]
    if not (np.isfinite(low) and np.isfinite(high) and low <= high) or low == high == 0:
        raise ExportError(
            f"Tensor {name} has the range {low:g} to {high:g}, from which no scale follows; expected finite numbers "
            "that are not both 0. Calibrate on data that the tensor answers to, or keep the nodes that read it."
        )


def _require_share(report: QuantizationReport) -> None:
    if report.quantized == 0:
        raise ExportError(
            f"None of the {report.weight_gemms} weight GEMMs of the graph was quantised, so there is no INT8 model to "
            "write. Check that the graph holds MatMul or Gemm nodes with constant weights."
        )
    unexplained = [name for name, reason in report.left.items() if reason == _UNKNOWN]
    if unexplained and report.gemm_flops_share < LEAST_SHARE:
        raise ExportError(
            f"Quantised weight GEMMs carry {report.gemm_flops_share:.1%} of the operations of all weight GEMMs; "
            f"expected at least {LEAST_SHARE:.0%}. Left without a known reason: {', '.join(unexplained)}."
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
        op_types_to_quantize=list(_GEMMS),
        extra_options={
            "ActivationSymmetric": not unsigned,
            "WeightSymmetric": True,
            "QuantizeBias": False,  # TensorRT reads no quantised bias
            "OpTypesToExcludeOutputQuantization": list(_GEMMS),
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
    products = [node for node in _gemms(model) if node.name not in left and not any(map(_is_weight, node.inputs[1:2]))]
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
        weight = model.graph.initializers[str(value.name).removesuffix(DEQUANT_OUTPUT_SUFFIX)]
        original = ir.Value(name=weight.name, shape=weight.shape, type=weight.type, const_value=weight.const_value)
        graph.register_initializer(original)
    for node, index in others:
        node.replace_input_with(index, original)


def _reads_quantized(node: ir.Node, index: int, left: Mapping[str, str]) -> bool:
    return node.op_type in _GEMMS and node.name not in left and index < 2


def _is_weight(operand: ir.Value | None) -> bool:
    producer = None if operand is None else operand.producer()
    if producer is not None and producer.op_type == _DEQUANTIZE:
        operand = producer.inputs[0]
    return operand is not None and operand.is_initializer()


def _is_dequantized(operand: ir.Value | None) -> bool:
    producer = None if operand is None else operand.producer()
    while producer is not None and producer.op_type in LAYOUT:
        producer = None if producer.inputs[0] is None else producer.inputs[0].producer()
    return producer is not None and producer.op_type == _DEQUANTIZE
