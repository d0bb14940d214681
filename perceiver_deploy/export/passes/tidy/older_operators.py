"""Write operators that an older opset does not have by those that it has."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.graph.tape import store
from perceiver_deploy.export.passes.base import GraphPass

_GELU_SINCE, _NUM_OUTPUTS_SINCE = 20, 18


class UseOlderOperators(GraphPass):
    """Write Gelu (of opset 20) by Erf or Tanh, and Split into equal parts (of opset 18) by Slice, for an opset."""

    name = "older operators"
    recorded = False

    def __init__(self, opset: int) -> None:
        self._rewrites: dict[str, Callable[[ir.Graph, ir.Node], list[ir.Node]]] = {}
        if opset < _GELU_SINCE:
            self._rewrites["Gelu"] = _gelu
        if opset < _NUM_OUTPUTS_SINCE:
            self._rewrites["Split"] = _slices

    def requires(self, model: ir.Model) -> None:
        """Shapes and types of what these two compute."""
        for node in self._newer(model):
            if any(value.dtype is None or value.shape is None for value in node.outputs):
                raise ir.passes.PreconditionError(f"Shape or type of what {node.name} computes is not known.")

    def run(self, model: ir.Model) -> int:
        """Returns how many nodes were rewritten."""
        rewritten = 0
        for node in self._newer(model):
            if not (nodes := self._rewrites[node.op_type](model.graph, node)):
                continue
            for index, new in enumerate(nodes):
                new.name = f"{node.name}/{index}.{new.op_type}"
            outputs = [new.outputs[0] for new in nodes[-len(node.outputs) :]]
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], nodes, node.outputs, outputs)
            rewritten += 1
        return rewritten

    def ensures(self, model: ir.Model) -> None:
        """Neither is left that the opset does not have, except a Split of an axis that is not a number."""
        left = [node for node in self._newer(model) if node.op_type != "Split" or _sizes(node) is not None]
        if left:
            raise ir.passes.PostconditionError(f"The opset does not have {[node.op_type for node in left]}.")

    def _newer(self, model: ir.Model) -> list[ir.Node]:
        """The nodes that the opset does not have."""
        return [node for node in model.graph if node.op_type in self._rewrites and node.domain == ""]


def _gelu(graph: ir.Graph, node: ir.Node) -> list[ir.Node]:
    """Half of x times 1 + erf(x / sqrt(2)), or times 1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)), as ONNX defines it."""
    x = node.inputs[0]
    assert x is not None
    assert x.dtype is not None
    if node.attributes.get_string("approximate", "none") == "tanh":
        inner = [_node("Mul", [x, x], x)]
        inner.append(_node("Mul", [inner[-1].outputs[0], _constant(graph, 0.044715, x.dtype)], x))
        inner.append(_node("Add", [inner[-1].outputs[0], _constant(graph, 1.0, x.dtype)], x))
        inner.append(_node("Mul", [inner[-1].outputs[0], x], x))
        inner.append(_node("Mul", [inner[-1].outputs[0], _constant(graph, math.sqrt(2 / math.pi), x.dtype)], x))
        inner.append(_node("Tanh", [inner[-1].outputs[0]], x))
    else:
        inner = [_node("Mul", [x, _constant(graph, math.sqrt(0.5), x.dtype)], x)]
        inner.append(_node("Erf", [inner[-1].outputs[0]], x))
    shifted = _node("Add", [inner[-1].outputs[0], _constant(graph, 1.0, x.dtype)], x)
    halved = _node("Mul", [x, _constant(graph, 0.5, x.dtype)], x)
    return [*inner, shifted, halved, _node("Mul", [halved.outputs[0], shifted.outputs[0]], x)]


def _slices(graph: ir.Graph, node: ir.Node) -> list[ir.Node]:
    """One Slice for each part; none where a size is not a number."""
    source, axis, sizes = node.inputs[0], node.attributes.get_int("axis", 0), _sizes(node)
    assert source is not None
    nodes, start = [], 0
    for output, size in zip(node.outputs, sizes or (), strict=sizes is not None):
        bounds = [_constant(graph, [value], ir.DataType.INT64) for value in (start, start + size, axis)]
        nodes.append(_node("Slice", [source, *bounds], output))
        start += size
    return nodes


def _sizes(split: ir.Node) -> list[int] | None:
    """Sizes of the parts of a Split, where all are numbers."""
    axis = split.attributes.get_int("axis", 0)
    sizes = [None if value.shape is None else value.shape[axis] for value in split.outputs]
    numbers = [size for size in sizes if isinstance(size, int)]
    return numbers if len(numbers) == len(sizes) else None


def _node(operator: str, inputs: list[ir.Value], like: ir.Value) -> ir.Node:
    return ir.node(operator, inputs, outputs=[ir.Value(shape=like.shape, type=like.type)])


def _constant(graph: ir.Graph, value: float | list[int], dtype: ir.DataType) -> ir.Value:
    return store(graph, f"constant_{dtype.name.lower()}_{value}", np.array(value, dtype.numpy()))
