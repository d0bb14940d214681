"""Where Q/DQ pairs stand: before the transposes and reshapes of what a GEMM reads.

Moving elements about and rounding each commute, so the numbers are the same. But engines then round as they store
what a projection gives, move bytes instead of floats, and round once what attention reads both as keys and as values.
"""

from __future__ import annotations

import onnx_ir as ir

from perceiver_deploy.errors import ExportError

LAYOUT = ("Transpose", "Reshape", "Unsqueeze", "Squeeze")
"""Operators whose output holds the elements of their first input in another order or shape."""


def dequantizer_of(operand: ir.Value | None) -> ir.Node | None:
    """What dequantises an operand, beyond layout operators; None where nothing does."""
    producer = None if operand is None else operand.producer()
    while producer is not None and producer.op_type in LAYOUT:
        producer = None if producer.inputs[0] is None else producer.inputs[0].producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def hoist_pairs(model: ir.Model) -> int:
    """Move every pair of a whole tensor up as far as only it reads the elements, and join pairs that become equal.

    Requires: scales and zero points are stored. Ensures: the same numbers. Returns how many pairs were moved.
    """
    moved = 0
    while moves := _hoist_each(model.graph):
        moved += moves
        _join_equal_pairs(model.graph)  # where several pairs read a value, one may be left that can go on
    model.graph.sort()
    return moved


def _hoist_each(graph: ir.Graph) -> int:
    moved = 0
    for dequantize in [node for node in graph if node.op_type == "DequantizeLinear"]:
        quantize = dequantize.inputs[0].producer() if dequantize.inputs[0] is not None else None
        if quantize is not None and (chain := _layout_above(quantize)):
            _move(quantize, dequantize, chain)
            moved += 1
    return moved


def _layout_above(quantize: ir.Node) -> list[ir.Node]:
    """The layout nodes whose elements only this node reads, the nearest first."""
    chain: list[ir.Node] = []
    reader = quantize
    while (node := _input(reader).producer()) is not None and node.op_type in LAYOUT:
        value = node.outputs[0]
        if value.is_graph_output() or any(use.node is not reader for use in value.uses()):
            break
        chain.append(node)
        reader = node
    return chain


def _move(quantize: ir.Node, dequantize: ir.Node, chain: list[ir.Node]) -> None:
    """Let the pair read what the chain reads, and the chain what the pair gives."""
    last, first = chain[0], chain[-1]
    source, rounded, result = _input(first), quantize.outputs[0], dequantize.outputs[0]
    result.replace_all_uses_with(last.outputs[0])
    quantize.replace_input_with(0, source)
    first.replace_input_with(0, result)
    rounded.shape = result.shape = source.shape


def _join_equal_pairs(graph: ir.Graph) -> None:
    """Pairs of one value with the same scale and zero point become one."""
    kept: dict[tuple[ir.Value, bytes, bytes], ir.Node] = {}
    for node in [node for node in graph if node.op_type == "QuantizeLinear"]:
        first = kept.setdefault((_input(node), _stored(node, 1), _stored(node, 2)), node)
        if first is node:
            continue
        (dequantize,) = [use.node for use in node.outputs[0].uses()]
        (kept_dequantize,) = [use.node for use in first.outputs[0].uses()]
        dequantize.outputs[0].replace_all_uses_with(kept_dequantize.outputs[0])
        graph.remove([dequantize, node], safe=True)


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _stored(node: ir.Node, index: int) -> bytes:
    value = node.inputs[index]
    if value is None or value.const_value is None:
        raise ExportError(f"{node.name} has no stored scale and zero point, so its graph was not quantised here.")
    return value.const_value.tobytes()
