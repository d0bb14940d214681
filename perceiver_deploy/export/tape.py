"""Write new nodes into a traced graph, with shapes and the module they belong to, as the exporter does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.origin import SCOPES

Shape = ir.Shape | Sequence[int | str | ir.SymbolicDim]


class Tape:
    """Nodes written one after the other before `before`, as parts of the module `module`.

    Floating weights are computed in float64 and stored in the type of `before`'s result.
    """

    def __init__(self, before: ir.Node, module: str) -> None:
        assert before.graph is not None
        self._before, self._module, self._graph = before, module, before.graph
        dtype = before.outputs[0].dtype
        assert dtype is not None
        self._dtype = dtype

    def op(
        self, op_type: str, inputs: Sequence[ir.Value], shape: Shape, module: str = "", **attributes: object
    ) -> ir.Value:
        """Write a node of one result of this shape; `module` is the name below the tape's module."""
        node = ir.node(op_type, inputs, attributes)  # type: ignore[arg-type]
        node.metadata_props[SCOPES] = repr([f"{self._module}.{module}".rstrip("."), op_type])
        node.outputs[0].shape = ir.Shape(shape)
        node.outputs[0].type = ir.TensorType(self._dtype)
        self._graph.insert_before(self._before, node)
        return node.outputs[0]

    def weight(self, name: str, array: np.ndarray) -> ir.Value:
        """An initialiser `MODULE.NAME`; one that is there with the same content is used again."""
        return store(self._graph, f"{self._module}.{name}", array.astype(self._dtype.numpy()))

    def integers(self, numbers: Sequence[int]) -> ir.Value:
        """An initialiser of int64, such as a shape or a list of axes."""
        return store(self._graph, "int64." + "_".join(map(str, numbers)), np.array(numbers, np.int64))

    def linear(self, tokens: ir.Value, weight: ir.Value, bias: ir.Value | None, module: str) -> ir.Value:
        """`tokens weight + bias`."""
        assert tokens.shape is not None
        assert weight.shape is not None
        result = self.op("MatMul", [tokens, weight], [*tokens.shape[:-1], weight.shape[-1]], module)
        return result if bias is None else self.like(result, "Add", bias, module)

    def like(self, value: ir.Value, op_type: str, other: ir.Value, module: str = "") -> ir.Value:
        """An elementwise operator that gives the shape of `value`."""
        assert value.shape is not None
        return self.op(op_type, [value, other], value.shape, module)

    def with_heads(self, tokens: ir.Value, heads: int) -> ir.Value:
        """[batch, tokens, heads * channels] to [batch, heads, tokens, channels]."""
        assert tokens.shape is not None
        batch, count, channels = tokens.shape
        assert isinstance(channels, int)
        if heads == 1:
            return self.op("Unsqueeze", [tokens, self.integers([1])], [batch, 1, count, channels])
        split = [batch, count, heads, channels // heads]
        target = self.integers([0, 0, heads, channels // heads])
        return self.swapped(self.op("Reshape", [tokens, target], split), 1, 2)

    def without_heads(self, value: ir.Value) -> ir.Value:
        """[batch, heads, tokens, channels] to [batch, tokens, heads * channels]."""
        swapped = self.swapped(value, 1, 2)
        assert swapped.shape is not None
        batch, count, heads, channels = swapped.shape
        assert isinstance(heads, int)
        assert isinstance(channels, int)
        merged = heads * channels
        return self.op("Reshape", [swapped, self.integers([0, 0, merged])], [batch, count, merged])

    def swapped(self, value: ir.Value, first: int, second: int) -> ir.Value:
        """Transpose two axes."""
        assert value.shape is not None
        perm = list(range(len(value.shape)))
        perm[first], perm[second] = second, first
        return self.op("Transpose", [value], [value.shape[axis] for axis in perm], perm=perm)

    def with_one(self, tokens: ir.Value) -> ir.Value:
        """Tokens [batch, tokens, channels] with one more channel, which is 1."""
        assert tokens.shape is not None
        batch, count, channels = tokens.shape
        assert isinstance(channels, int)
        one = store(self._graph, f"one.{self._dtype.name.lower()}", np.array(1, self._dtype.numpy()))
        return self.op("Pad", [tokens, self.integers([0, 0, 0, 0, 0, 1]), one], [batch, count, channels + 1])


def store(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """An initialiser of this name and content; under another name where the name is taken by other content."""
    free, number = name, 1
    while (found := graph.initializers.get(free)) is not None:
        if found.const_value is not None and np.array_equal(found.const_value.numpy(), array):
            return found
        number += 1
        free = f"{name}_{number}"
    tensor = ir.tensor(np.asarray(array, order="C"), name=free)  # ascontiguousarray would give a scalar an axis
    value = ir.Value(name=free, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
