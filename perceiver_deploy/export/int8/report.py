"""What an INT8 graph has quantised: weight GEMMs, the share of operations that they carry, and what is left."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_deploy.bundle.manifest import opt_sizes
from perceiver_deploy.errors import ExportError
from perceiver_deploy.export.graph.flops import ATTENTION_OPERATORS, flops_by_node
from perceiver_deploy.export.graph.origin import stated_axes
from perceiver_deploy.export.int8.pair_placement import dequantizer_of
from perceiver_deploy.export.int8.rules import gemms
from perceiver_deploy.export.int8.saturation import SaturationReport, find_saturation

LEAST_SHARE = 0.9
"""Share of the FLOPs of weight GEMMs that must be quantised unless a reason is known for the rest."""
_UNKNOWN = "an operand has no Q/DQ pair"
_OPERATORS = {
    "Conv": "a convolution; only MatMul and Gemm are quantised",
    "Loop": "a Loop, whose products stay float32",
} | dict.fromkeys(ATTENTION_OPERATORS, "an attention in one operator, which reads no Q/DQ pairs")
"""Operators that have operations and are never quantised, and why."""


@dataclass(frozen=True)
class QuantizationReport:
    """What is quantised and what is left, with the axes at their `opt` sizes.

    Attributes:
        weight_gemms: MatMul and Gemm nodes with a stored operand: the second one of a projection, the first one where a
            query is stored.
        quantized: those of them that are quantised.
        left: all nodes that have operations and stay float, with the reason.
        gemm_flops_share: of the FLOPs of weight GEMMs, what the quantised ones carry.
        flops_share: of all FLOPs, what quantised nodes carry, products of activations among them.
        left_flops_shares: of all FLOPs, what each node of `left` carries; together with `flops_share` they are 1.
        saturation: which products could saturate where a processor has no INT8 dot products.
    """

    weight_gemms: int
    quantized: int
    left: dict[str, str]
    gemm_flops_share: float
    flops_share: float
    left_flops_shares: dict[str, float]
    saturation: SaturationReport

    def lines(self) -> list[str]:
        """For people: what is quantised, and what is not."""
        shares = f"{self.gemm_flops_share:.1%} of their operations, {self.flops_share:.1%} of all"
        first = f"{self.quantized} of {self.weight_gemms} weight GEMMs quantised ({shares})"
        left = (
            f"not quantised: {name}, {self.left_flops_shares[name]:.1%} of all: {reason}"
            for name, reason in self.left.items()
        )
        return [first, self.saturation.line(), *left]


def count_quantized(model: ir.Model, left: Mapping[str, str] | None = None) -> QuantizationReport:
    """Count the weight GEMMs of a Q/DQ graph that read their weight through DequantizeLinear; `left` has reasons."""
    shapes = [value.shape for value in model.graph.inputs if value.shape is not None]
    ones = {str(size.value): 1 for shape in shapes for size in shape if isinstance(size, ir.SymbolicDim)}
    flops = flops_by_node(model, ones | opt_sizes(stated_axes(model)))  # a graph that is not ours states no axes
    weight_gemms = [node for node in gemms(model) if any(map(is_weight, node.inputs[:2]))]
    quantized = {node for node in gemms(model) if None not in map(dequantizer_of, node.inputs[:2])}
    counted = [node for node in weight_gemms if node in quantized]
    carried = {node: _carried(node, flops) for node in model.graph}
    floats = [node for node, count in carried.items() if count and node not in quantized]
    reasons = {str(node.name): _OPERATORS.get(node.op_type, _UNKNOWN) for node in floats} | dict(left or {})
    return QuantizationReport(
        weight_gemms=len(weight_gemms),
        quantized=len(counted),
        left=reasons,
        gemm_flops_share=_share(carried, counted, weight_gemms),
        flops_share=_share(carried, quantized, carried),
        left_flops_shares={
            name: _share(carried, [node for node in floats if node.name == name], carried) for name in reasons
        },
        saturation=find_saturation(model),
    )


def _carried(node: ir.Node, flops: Mapping[ir.Node, int]) -> int:
    """Operations of a node; of a Loop, those of its body."""
    inner = node.attributes["body"].as_graph().all_nodes() if node.op_type == "Loop" else ()
    return sum(flops.get(each, 0) for each in (node, *inner))


def _share(flops: Mapping[ir.Node, int], part: Collection[ir.Node], whole: Collection[ir.Node]) -> float:
    total = sum(flops[node] for node in whole)
    return sum(flops[node] for node in part) / total if total else 0.0


def require_share(report: QuantizationReport) -> None:
    """Raise an `ExportError` where nothing is quantised, or less than `LEAST_SHARE` without a known reason."""
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


def is_weight(operand: ir.Value | None) -> bool:
    """Whether a GEMM's operand is stored, as it is or quantised."""
    producer = None if operand is None else operand.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        operand = producer.inputs[0]
    return operand is not None and operand.is_initializer()
