"""Which nodes of a graph stay in float32 when the rest computes in half precision, and why: one rule a class.

A rule is made for one graph, and gives its reason for a node, or None. A reason is `KIND` or `KIND: DETAIL`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache

import numpy as np
import onnx_ir as ir
from onnx import defs

from perceiver_deploy.export.graph.flops import ATTENTION_OPERATORS
from perceiver_deploy.export.graph.values import constant_array

Limits = Mapping[str, tuple[float, float]]
"""Lowest and highest value that tensors were seen to hold, by name."""

HEADROOM = 8
"""How many times beyond the range that was seen a tensor must still fit: other data, and sums within a kernel."""
LEAST_ACCURACY = 0.01
"""Relative error that one sum may make, terms times unit roundoff: the bound that fp16 is held to as a whole."""

MOVES = (
    *("Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad"),
    *("Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)
"""Operators that pass values on as they are, in whichever precision."""
_CARRIES = (*MOVES, "Add", "Mul", "Neg", "Sub", "Where")
_NORMALIZATIONS = (
    *("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LogSoftmax"),
    *("RMSNormalization", "Softmax", *ATTENTION_OPERATORS),
)
PRODUCTS = ("MatMul", "Gemm", "Conv")
"""Operators that sum products, in float32 whatever their operands are."""
_STEEP = ("Ceil", "Cos", "Floor", "Log", "Mod", "Round", "Sin", "Tan")
_TYPED = ("ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform")
_SUMS = (
    *("CumSum", "GlobalAveragePool", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is float32."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def float_operands(node: ir.Node) -> list[ir.Value]:
    """The float32 values that a node reads."""
    return [value for value in node.inputs if value is not None and is_float(value)]


def reads_shape_only(node: ir.Node) -> bool:
    """Whether a node takes its operand in any precision, because it reads no number of it."""
    return node.op_type in ("Shape", "Size")


def is_flexible(node: ir.Node) -> bool:
    """Whether a node computes nothing: it moves values, or turns integers into floats."""
    return node.op_type in MOVES or (node.op_type == "Cast" and not is_float(node.inputs[0]))


class Unsupported:
    """The operator has no such type in the graph's opset (Conv took bfloat16 with opset 22).

    Nor where one of its operands is float32 whatever the others are (scales of Resize), or an attribute says the type.
    """

    def __init__(self, dtype: ir.DataType, opset: int) -> None:
        self._opset = opset
        self._type = f"tensor({dtype.name.lower()})"

    def reason(self, node: ir.Node) -> str | None:
        """Why a node stays, or None."""
        if node.domain or self._takes(node.op_type):
            return None
        return f"operator: {node.op_type} of opset {self._opset} has no {self._type}"

    def _takes(self, op_type: str) -> bool:
        if op_type in _TYPED:
            return False
        schema = defs.get_schema(op_type, self._opset)
        if any(each.type_str == "tensor(float)" for each in (*schema.inputs, *schema.outputs)):
            return False
        sets = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
        floats = [sets[each.type_str] for each in (*schema.inputs, *schema.outputs) if each.type_str in sets]
        return all(self._type in types for types in floats if "tensor(float)" in types)


class Normalization:
    """Exponentials, variances and divisions by their sums are computed in float32, whole attentions with them."""

    def reason(self, node: ir.Node) -> str | None:
        """Why a node stays, or None."""
        return f"normalisation: {node.op_type}" if node.op_type in _NORMALIZATIONS else None


class SteepFunction:
    """Functions that turn a small relative error of their argument into a large one, and all that computes it.

    The Fourier features of positions are such: in fp16 they are off by up to 2. So are resized pictures, which are
    rounded to levels, and logarithms of powers.
    """

    def __init__(self, nodes: Iterable[ir.Node]) -> None:
        self._reasons: dict[ir.Node, str] = {}
        for node in nodes:
            if float_operands(node) and (node.op_type in _STEEP or _makes_integers(node)):
                self._reasons[node] = f"steep function: {node.op_type}"
                self._add_computing(node)

    def reason(self, node: ir.Node) -> str | None:
        """Why a node stays, or None."""
        return self._reasons.get(node)

    def _add_computing(self, steep: ir.Node) -> None:
        pending = [steep]
        while pending:
            for value in float_operands(pending.pop()):
                node = value.producer()
                if node is not None and node not in self._reasons:
                    self._reasons[node] = f"argument of a steep function: of {steep.op_type}"
                    pending.append(node)


class Position:
    """What is computed from sizes and numbers alone: neither from data nor from arrays of weights.

    Indices along an axis are integers beyond what half holds exactly (2048 in fp16, 256 in bf16).
    """

    def __init__(self, nodes: Iterable[ir.Node]) -> None:
        self._others: set[ir.Value] = set()
        for node in nodes:
            if not reads_shape_only(node) and any(value is not None and self._is_other(value) for value in node.inputs):
                self._others.update(node.outputs)

    def reason(self, node: ir.Node) -> str | None:
        """Why a node stays, or None."""
        return None if is_flexible(node) or self._others.issuperset(node.outputs) else "position: depends on no data"

    def _is_other(self, value: ir.Value) -> bool:
        array = constant_array(value)
        return (
            value.is_graph_input()
            or value in self._others
            or (array is not None and is_float(value) and array.size > 1)
        )


class Overflow:
    """Weights and constants beyond the largest number of half, such as those of masks, wherever they are carried to."""

    def __init__(self, nodes: Iterable[ir.Node], dtype: ir.DataType) -> None:
        self._largest = float(dtype.max)
        self._found = cache(self._stored)
        self._carried: dict[ir.Value, str] = {}
        for node in nodes:
            reason = self._of_operands(node)
            if reason is not None and node.op_type in _CARRIES:
                self._carried.update(dict.fromkeys(filter(is_float, node.outputs), reason))

    def reason(self, node: ir.Node) -> str | None:
        """Why a node stays, or None."""
        return self._of_operands(node) or next((self._carried[v] for v in node.outputs if v in self._carried), None)

    def _of_operands(self, node: ir.Node) -> str | None:
        reasons = (self._carried.get(value) or self._found(value) for value in float_operands(node))
        return next(filter(None, reasons), None)

    def _stored(self, value: ir.Value) -> str | None:
        array = constant_array(value)
        largest = 0.0 if array is None or not array.size else float(np.abs(array).max())
        if largest <= self._largest:
            return None
        return f"overflow: {value.name} holds {largest:.2g}, beyond {self._largest:.5g}"


class Underflow:
    """Weights and constants that lose more to underflow than to rounding."""

    def __init__(self, dtype: ir.DataType) -> None:
        self._dtype = dtype
        self._found = cache(self._stored)

    def reason(self, node: ir.Node) -> str | None:
        """Why a node stays, or None."""
        return next((reason for value in float_operands(node) if (reason := self._found(value)) is not None), None)

    def _stored(self, value: ir.Value) -> str | None:
        array = constant_array(value)
        if array is None or not array.size:
            return None
        error = rounding_error(array, self._dtype)
        return f"underflow: {value.name} would be off by {error:.1e}" if error > unit_roundoff(self._dtype) else None


class LongSum:
    """Sums of so many terms that they are not accurate in half; those of matrix products are kept in float32 anyway."""

    def __init__(self, dtype: ir.DataType) -> None:
        self._most = LEAST_ACCURACY / unit_roundoff(dtype)

    def reason(self, node: ir.Node) -> str | None:
        """Why a node stays, or None."""
        if node.op_type not in _SUMS:
            return None
        terms = _terms(node)
        if terms is not None and terms <= self._most:
            return None
        return f"long sum: {node.op_type} of {'any number of' if terms is None else terms} terms"


class ActivationRange:
    """Tensors that were seen near the largest number of fp16, or so small that they lose bits: not for bf16.

    A tensor that is only moved has the range of where it comes from.
    """

    def __init__(self, nodes: Iterable[ir.Node], ranges: Limits, dtype: ir.DataType) -> None:
        self._largest, self._least = float(dtype.max) / HEADROOM, float(dtype.tiny) * HEADROOM
        self._dtype_max = float(dtype.max)
        self._ranges, self._moved = ranges, dict[ir.Value, float]()
        for node in nodes:
            if node.op_type in MOVES:
                magnitude = max((self._magnitude(value) for value in float_operands(node)), default=0.0)
                self._moved.update(dict.fromkeys(filter(is_float, node.outputs), magnitude))

    def reason(self, node: ir.Node) -> str | None:
        """Why a node stays, or None."""
        for value in (*float_operands(node), *filter(is_float, node.outputs)):
            magnitude = self._magnitude(value)
            if magnitude > self._largest:
                return (
                    f"activation range: {value.name} was seen at {magnitude:.2g}, "
                    f"{HEADROOM} times that is beyond {self._dtype_max:.5g}"
                )
            if 0 < magnitude < self._least:
                return f"activation range: {value.name} was seen at {magnitude:.2g} at most, too small for all bits"
        return None

    def _magnitude(self, value: ir.Value) -> float:
        if not is_observed(value):
            return self._moved.get(value, 0.0)
        low, high = self._ranges[value.name or ""]
        return max(-low, high)


def is_observed(value: ir.Value) -> bool:
    """Whether the range of a tensor must be known: it is float32, computed or an input, and not only moved."""
    node = value.producer()
    return is_float(value) and not value.is_initializer() and (node is None or node.op_type not in MOVES)


def unit_roundoff(dtype: ir.DataType) -> float:
    """Largest relative error of rounding a number of normal size: 2^-11 in fp16, 2^-8 in bf16."""
    return float(dtype.eps) / 2


def rounding_error(array: np.ndarray, dtype: ir.DataType) -> float:
    """Relative L2 error of storing an array that does not overflow."""
    wanted = array.astype(np.float64)
    norm = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(array.astype(dtype.numpy()).astype(np.float64) - wanted)) / norm if norm else 0.0


def _makes_integers(node: ir.Node) -> bool:
    dtype = node.outputs[0].dtype
    return node.op_type == "Cast" and dtype is not None and not dtype.is_floating_point()


def _terms(node: ir.Node) -> int | None:
    """How many numbers each result sums; None where that is not fixed."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    axes = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if shape is None or axes is None or not axes.size or node.op_type == "CumSum":
        return None
    sizes = [shape[int(axis)] for axis in axes.ravel()]
    fixed = [size for size in sizes if isinstance(size, int)]
    return math.prod(fixed) if len(fixed) == len(sizes) else None


Reason = Callable[[ir.Node], str | None]


def rules_for(model: ir.Model, dtype: ir.DataType, ranges: Limits | None) -> list[Reason]:
    """The rules of a graph; the first that has a reason names it. bf16 has the range of float32: it needs no ranges."""
    nodes = list(model.graph)
    rules: list[Reason] = [
        SteepFunction(nodes).reason,
        Position(nodes).reason,
        Normalization().reason,
        Overflow(nodes, dtype).reason,
        Underflow(dtype).reason,
        LongSum(dtype).reason,
        Unsupported(dtype, model.opset_imports[""]).reason,
    ]
    return rules if ranges is None else [*rules, ActivationRange(nodes, ranges, dtype).reason]
