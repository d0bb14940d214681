"""Write new nodes into a traced graph, with shapes and the module they belong to, as the exporter does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.graph.origin import SCOPES

Shape = ir.Shape | Sequence[int | str | ir.SymbolicDim]


class Tape:
    """Nodes written one after the other before `before`, as parts of the module `module`.

    Floating weights are computed in float64 and stored in the type of `before`'s result.
    """

    def __init__(self, before: ir.Node, module: str) -> None:
        graph, dtype = before.graph, before.outputs[0].dtype
        assert graph is not None
        assert dtype is not None
        self.dtype = dtype
        self.prefix = module
        self._module, self._graph, self._inner = module, graph, False
        self._write: Callable[[ir.Node], None] = lambda node: graph.insert_before(before, node)

    def inside(self, body: ir.Graph, prefix: str) -> Tape:
        """A tape that writes at the end of a subgraph, where values are called `PREFIX...`; weights stay outside."""
        tape = copy.copy(self)
        tape._write, tape.prefix, tape._inner = body.append, prefix, True
        return tape

    def argument(self, name: str, shape: Shape, dtype: ir.DataType | None = None) -> ir.Value:
        """An input of a subgraph."""
        return ir.Value(name=f"{self.prefix}.{name}", shape=ir.Shape(shape), type=ir.TensorType(dtype or self.dtype))

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        shape: Shape,
        module: str = "",
        *,
        dtype: ir.DataType | None = None,
        **attributes: object,
    ) -> ir.Value:
        """Write a node of one result of this shape; `module` is the name below the tape's module.

        The result is of the tape's type unless `dtype` is given.
        """
        (result,) = self.ops(op_type, inputs, [shape], module, dtype=dtype, **attributes)
        return result

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        shapes: Sequence[Shape],
        module: str = "",
        *,
        dtype: ir.DataType | None = None,
        **attributes: object,
    ) -> Sequence[ir.Value]:
        """Write a node of several results of these shapes."""
        node = ir.node(op_type, inputs, attributes, num_outputs=len(shapes))  # type: ignore[arg-type]
        node.metadata_props[SCOPES] = repr([f"{self._module}.{module}".rstrip("."), op_type])
        for result, shape in zip(node.outputs, shapes, strict=True):
            result.shape = ir.Shape(shape)
            result.type = ir.TensorType(dtype or self.dtype)
        self._write(node)
        if self._inner:
            for result in node.outputs:
                result.name = f"{self.prefix}.{result.name}"
        return node.outputs

    def weight(self, name: str, array: np.ndarray) -> ir.Value:
        """An initialiser `MODULE.NAME`, of int64 or the tape's type; one with the same content is used again."""
        stored = array if array.dtype == np.int64 else array.astype(self.dtype.numpy())
        return store(self._graph, f"{self._module}.{name}", stored)

    def integers(self, numbers: Sequence[int]) -> ir.Value:
        """An initialiser of int64, such as a shape or a list of axes, named after its few numbers."""
        return store(self._graph, "int64." + "_".join(map(str, numbers)), np.array(numbers, np.int64))

    def linear(self, tokens: ir.Value, weight: ir.Value, bias: ir.Value | None, module: str) -> ir.Value:
        """`tokens weight + bias`."""
        assert tokens.shape is not None
        assert weight.shape is not None
        result = self.op("MatMul", [tokens, weight], [*tokens.shape[:-1], weight.shape[-1]], module)
        return result if bias is None else self.like(result, "Add", bias, module)

    def like(self, value: ir.Value, op_type: str, other: ir.Value | None = None, module: str = "") -> ir.Value:
        """An elementwise operator of one or two operands that gives the shape of `value`."""
        assert value.shape is not None
        return self.op(op_type, [value] if other is None else [value, other], value.shape, module)

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
        return self.op("Pad", [tokens, self.integers([0, 0, 0, 0, 0, 1]), self.number(1)], [batch, count, channels + 1])

    def number(self, number: float) -> ir.Value:
        """An initialiser of one number of the tape's type."""
        return store(self._graph, f"{self.dtype.name.lower()}.{number:g}", np.array(number, self.dtype.numpy()))

    def true(self) -> ir.Value:
        """An initialiser that is true, such as the condition of a Loop."""
        return store(self._graph, "true", np.array(True))

    def sizes(self, *parts: int | tuple[ir.Value, int]) -> ir.Value:
        """A shape as int64: of numbers, and of sizes of values along an axis."""
        known = [
            self.integers([part])
            if isinstance(part, int)
            else self.op("Shape", [part[0]], [1], dtype=ir.DataType.INT64, start=part[1], end=part[1] + 1)
            for part in parts
        ]
        return known[0] if len(known) == 1 else self.op("Concat", known, [len(parts)], dtype=ir.DataType.INT64, axis=0)


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
