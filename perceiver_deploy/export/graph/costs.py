"""What each module of a graph takes: operations, weights, and the activations that its nodes move."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_deploy.bundle.manifest import Axis, opt_sizes
from perceiver_deploy.export.graph.flops import QUANTIZATION, count_flops, repeated_nodes, shape_at
from perceiver_deploy.export.graph.origin import layer_of, module_of

_MOVES_NOTHING = ("Constant", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze")
"""Operators that give what they read another shape, or are known without reading it."""


@dataclass(frozen=True)
class ModuleCost:
    """What one run of a module's nodes takes, with the axes at their `opt` sizes.

    `weight_bytes` are of stored tensors, each counted at the first module that reads it. `activation_bytes` are all
    that the nodes read and write otherwise, each by itself: an engine that fuses nodes moves less.
    """

    module: str
    flops: int
    weight_bytes: int
    activation_bytes: int


def cost_by_module(model: ir.Model, axes: Mapping[str, Axis]) -> list[ModuleCost]:
    """The cost of each layer, such as `encoder.self_attends.0`, and of what is around them, in the graph's order.

    Nodes of the model itself count as "graph". A layer that several blocks run is one module.

    Raises:
        ExportError: a shape is not known, or names an axis that is not given.
    """
    sizes = opt_sizes(axes)
    flops, weights, moved = Counter[str](), Counter[str](), dict[str, int]()
    for module, count in count_flops(model, sizes).items():
        flops[layer_of(module)] += count
    seen = set[ir.Value]()
    for node, times in repeated_nodes(model.graph, sizes):
        part = layer_of(reading_module(node))
        stored = {value for value in node.inputs if value is not None and value.is_initializer()} - seen
        seen |= stored
        weights[part] += sum(value.const_value.nbytes for value in stored if value.const_value is not None)
        moved[part] = moved.get(part, 0) + times * _moved_bytes(node, sizes)
    return [ModuleCost(part, flops[part], weights[part], count) for part, count in moved.items()]


def reading_module(node: ir.Node) -> str:
    """The module of a node; onnxruntime's quantiser names what it adds after tensors, so theirs is the reader's."""
    while node.op_type in QUANTIZATION and (uses := node.outputs[0].uses()):
        node = next(iter(uses)).node
    return module_of(node)


def _moved_bytes(node: ir.Node, sizes: Mapping[str, int]) -> int:
    if node.op_type in _MOVES_NOTHING:
        return 0
    read = [value for value in node.inputs if value is not None and value.name and not value.is_initializer()]
    return sum(_bytes(value, sizes) for value in [*read, *node.outputs] if value.name)


def _bytes(value: ir.Value, sizes: Mapping[str, int]) -> int:
    dtype, node = value.dtype, value.producer()
    if dtype is None and node is not None and node.op_type in QUANTIZATION:  # not written down either
        typed = node.inputs[1 if node.op_type == "DequantizeLinear" else 2]
        dtype = None if typed is None else typed.dtype
    assert dtype is not None
    return math.ceil(math.prod(shape_at(value, sizes)) * dtype.itemsize)  # some types are smaller than a byte
