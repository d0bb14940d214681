"""INT8 weights and float32 arithmetic: a quarter of the size, no calibration, and nothing that can saturate."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_deploy.errors import ExportError
from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.graph.tape import store
from perceiver_deploy.export.int8.rules import gemms
from perceiver_deploy.export.int8.saturation import full_scales, round_weight

_LEAST_ELEMENTS = 1024
"""A smaller weight saves less than the node that dequantises it takes."""
_EXACT_MODULE = "resize"
"""Weights that resize raw pixels are exact whole numbers and shares of them; see `quantization_rules`."""
_KEPT, _SMALL, _RESIZES = "kept in float32 on request", "a small weight", "resizes raw pixels"
_SHARED = "a weight that other operators read too"


@dataclass(frozen=True)
class WeightsReport:
    """What is stored in INT8.

    Attributes:
        weights: stored matrices that products read as they are.
        quantized: those of them that are stored in INT8.
        left: products whose weight stays float32, each with the reason.
        share: of the bytes of all float32 weights of the graph, what became a quarter.
    """

    weights: int
    quantized: int
    left: dict[str, str]
    share: float

    def lines(self) -> list[str]:
        """For people: what is in INT8, and that its numbers are the same everywhere."""
        return [
            f"{self.quantized} of {self.weights} weights of products in INT8 ({self.share:.1%} of all bytes)",
            "computed in float32: no sum can saturate, on any processor",
        ]


def quantize_weights(model: ir.Model, keep: Collection[str] = ()) -> WeightsReport:
    """Store the weight of each MatMul and Gemm as int8 with a scale for each output channel, in place.

    Requires: types. Ensures: a DequantizeLinear gives each product its weight; nothing else changes.

    Args:
        model: a float32 graph.
        keep: names of products whose weight stays float32.

    Raises:
        ExportError: `keep` has a name that no product has, or no weight is large enough.
    """
    if unknown := sorted(set(keep) - {str(node.name) for node in gemms(model)}):
        raise ExportError(f"The graph has no MatMul or Gemm {unknown[0]!r} to keep in float32.")
    weights = dict[ir.Value, list[ir.Node]]()
    for node in gemms(model):
        if (weight := _weight(node)) is not None:
            weights.setdefault(weight, []).append(node)
    left, total, quantized = dict[str, str](), _float_bytes(model), 0
    taken = 0
    for weight, readers in weights.items():
        assert weight.const_value is not None
        if reason := _reason(weight, readers, keep):
            left |= {str(node.name): reason for node in readers}
            continue
        taken += weight.const_value.nbytes
        _dequantize(model.graph, weight, readers)
        quantized += 1
    if not quantized:
        raise ExportError(f"None of the {len(weights)} weights can be stored in INT8: {_reasons(left)}.")
    return WeightsReport(len(weights), quantized, left, taken / total)


def _weight(node: ir.Node) -> ir.Value | None:
    """The stored float32 matrix that a product reads as its second operand."""
    value = node.inputs[1]
    stored = None if value is None or not value.is_initializer() else value.const_value
    return value if stored is not None and stored.dtype == ir.DataType.FLOAT and len(stored.shape) == 2 else None


def _reason(weight: ir.Value, readers: list[ir.Node], keep: Collection[str]) -> str | None:
    """Why a weight stays float32; None where it does not."""
    if any(node.name in keep for node in readers):
        return _KEPT
    if any(module_of(node).partition(".")[0] == _EXACT_MODULE for node in readers):
        return _RESIZES
    if weight.is_graph_output() or any(use.node not in readers or use.idx != 1 for use in weight.uses()):
        return _SHARED
    assert weight.const_value is not None
    return _SMALL if weight.const_value.size < _LEAST_ELEMENTS else None


def _dequantize(graph: ir.Graph, weight: ir.Value, readers: list[ir.Node]) -> None:
    """Let products read an int8 weight through a DequantizeLinear; Gemms that transpose it have their own."""
    assert weight.const_value is not None
    for transposed in sorted({_transposes(node) for node in readers}):
        ours = [node for node in readers if _transposes(node) == transposed]
        array = weight.const_value.numpy()
        matrix = array.T if transposed else array
        scales = full_scales(matrix)
        levels = round_weight(matrix, scales)
        suffix = "_transposed" if transposed else ""
        stored = store(graph, f"{weight.name}{suffix}_int8", levels.T if transposed else levels)
        scale = store(graph, f"{weight.name}{suffix}_scale", scales)
        node = ir.node("DequantizeLinear", [stored, scale], {"axis": 0 if transposed else 1})
        node.name = f"{weight.name}{suffix}_DequantizeLinear"
        node.outputs[0].name = f"{weight.name}{suffix}_dequantized"
        node.outputs[0].shape, node.outputs[0].type = weight.shape, weight.type
        graph.insert_before(ours[0], node)
        for reader in ours:
            reader.replace_input_with(1, node.outputs[0])
    del graph.initializers[str(weight.name)]


def _transposes(node: ir.Node) -> bool:
    return bool(node.attributes.get_int("transB", 0))


def _float_bytes(model: ir.Model) -> int:
    stored = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    return sum(tensor.nbytes for tensor in stored if tensor.dtype == ir.DataType.FLOAT)


def _reasons(left: dict[str, str]) -> str:
    return ", ".join(sorted(set(left.values()))) or "the graph has none"
