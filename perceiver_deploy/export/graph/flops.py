"""Floating-point operations of a graph, at given sizes of its axes."""

from __future__ import annotations

import ast
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import onnx_ir as ir

from perceiver_deploy.errors import ExportError
from perceiver_deploy.export.graph.origin import module_of

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,  # the exporter writes a division that leaves no remainder so
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable[[int, int], int]] = {
    "Mod": operator.mod,
    "FloorDiv": operator.floordiv,
    "Max": max,
    "Min": min,
}

ATTENTION_OPERATORS = ("MultiHeadAttention", "Attention")
"""Operators that are a whole attention, as `passes.attentions` writes them."""

QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")
"""Nodes that keep the shape, which onnxruntime's quantiser does not write down."""


def shape_at(value: ir.Value, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a value once every axis has a size.

    Raises:
        ExportError: the shape is not known, or names an axis that `sizes` does not have.
    """
    return tuple(_evaluate(size, sizes) for size in _shape(value))


def count_flops(model: ir.Model, sizes: Mapping[str, int]) -> dict[str, int]:
    """Operations of every MatMul, Gemm, Conv and attention operator, by module: two for each multiply-add.

    Raises:
        ExportError: as `shape_at`.
    """
    flops: Counter[str] = Counter()
    for node, count in flops_by_node(model, sizes).items():
        flops[module_of(node)] += count
    return dict(flops)


def flops_by_node(model: ir.Model, sizes: Mapping[str, int]) -> dict[ir.Node, int]:
    """Operations of every MatMul, Gemm, Conv and attention operator: two for each multiply-add.

    Raises:
        ExportError: as `shape_at`.
    """
    flops = {}
    for node, times in repeated_nodes(model.graph, sizes):
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            flops[node] = times * 2 * math.prod(shape_at(node.outputs[0], sizes)) * _summed(node, sizes)
        elif node.op_type in ATTENTION_OPERATORS:
            flops[node] = times * _attention_flops(node, sizes)
    return flops


def repeated_nodes(graph: ir.Graph, sizes: Mapping[str, int], times: int = 1) -> Iterator[tuple[ir.Node, int]]:
    """Every node, and how often a run of the graph runs it: those of a Loop once a turn.

    Raises:
        ExportError: as `shape_at`.
    """
    for node in graph:
        yield node, times
        if node.op_type == "Loop":
            yield from repeated_nodes(node.attributes["body"].as_graph(), sizes, times * turns(node, sizes))


def turns(loop: ir.Node, sizes: Mapping[str, int]) -> int:
    """How many turns a Loop takes that runs once for each row of a value (`passes.grids.row_loop`); 1 for another."""
    squeeze = loop.inputs[0].producer() if loop.inputs[0] is not None else None
    shape = squeeze.inputs[0].producer() if squeeze is not None and squeeze.inputs[0] is not None else None
    if shape is None or shape.op_type != "Shape" or shape.inputs[0] is None:
        return 1
    return shape_at(shape.inputs[0], sizes)[shape.attributes.get_int("start", 0)]


def _attention_flops(node: ir.Node, sizes: Mapping[str, int]) -> int:
    """Operations of scores and weighted values: operands are [batch, tokens, heads * head size]."""
    query, key, value = node.inputs[:3]
    assert query is not None
    assert key is not None
    assert value is not None
    batch, queries, qk_channels = shape_at(query, sizes)
    _, keys, _ = shape_at(key, sizes)
    return 2 * batch * queries * keys * (qk_channels + shape_at(value, sizes)[-1])


def _summed(node: ir.Node, sizes: Mapping[str, int]) -> int:
    """How many products each element of the output sums, by the second operand."""
    weight = node.inputs[1]
    assert weight is not None
    if node.op_type == "Conv":  # weight [channels out, channels in / group, *kernel]
        return math.prod(shape_at(weight, sizes)[1:])
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", False)
    return _evaluate(_shape(weight)[-1 if transposed else -2], sizes)


def _shape(value: ir.Value) -> ir.Shape:
    node = value.producer()
    if value.shape is None and node is not None and node.op_type in QUANTIZATION and node.inputs[0] is not None:
        return _shape(node.inputs[0])
    if value.shape is None:
        raise ExportError(f"The shape of {value.name} is not known. Export the graph again, or infer its shapes.")
    return value.shape


def _evaluate(size: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int:
    if isinstance(size, int):
        return size
    expression = str(size.value)

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name) if name in sizes:
                return sizes[name]
            case ast.Call(func=ast.Name(id=name), args=[left, right]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](value(left), value(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
        raise ExportError(
            f"The size {expression!r} cannot be worked out from the axes {', '.join(sizes)}: "
            f"{ast.unparse(node)!r} is neither a number, one of them, nor + - * // %, {', '.join(_FUNCTIONS)} of such."
        )

    return value(ast.parse(expression, mode="eval").body)
