"""What attentions over the tokens of a grid need once the features of rows and columns are apart.

Channel v of a token after LayerNorm is (v - mean) / deviation * weight + bias, so a vector a scores

    a . token = (b_c . content + b_r . row + b_k . column) / deviation + a . bias        b = a weight - mean(a weight)

with b_c, b_r and b_k the channels of b for the content, the row and the column: taking the mean from b does what taking
it from the token does. Products over all positions have the few channels of the content left; those with rows and
columns are made once for each of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.graph.values import constant_array, float64
from perceiver_deploy.export.passes.grids.match import GridTokens, joined


@dataclass(frozen=True)
class NormedGrid:
    """Tokens of a grid after a LayerNormalization `norm`."""

    grid: GridTokens
    norm: ir.Node

    @classmethod
    def of(cls, value: ir.Value | None) -> NormedGrid | None:
        """The norm that gives a value and the grid before it, or None where that is another form."""
        norm = None if value is None else value.producer()
        if norm is None or norm.op_type != "LayerNormalization" or len(norm.inputs) < 3 or norm.inputs[0] is None:
            return None
        grid = GridTokens.of(norm.inputs[0])
        arrays = [constant_array(value) for value in norm.inputs[1:]]
        return None if grid is None or any(array is None for array in arrays) else cls(grid, norm)

    @cached_property
    def weight(self) -> np.ndarray:
        """[channels], float64."""
        return float64(self.norm.inputs[1])

    @cached_property
    def bias(self) -> np.ndarray:
        """[channels], float64."""
        return float64(self.norm.inputs[2])

    def split(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Matrices that take a vector a to b_c, b_r and b_k: [channels, part's channels]."""
        grid = self.grid
        centred = np.diag(self.weight) @ (np.eye(grid.count) - 1 / grid.count)
        content, rows, columns = (
            np.concatenate([centred[:, part.channels.start : part.channels.stop] for part in parts], axis=1)
            for parts in ((grid.content,), grid.rows, grid.columns)
        )
        return content, rows, columns


@dataclass(frozen=True)
class GridPositions:
    """What the formula needs of a grid.

    `content` is [batch, height, width, channels], `inverse` 1 / deviation [batch, height, width, 1]; `rows`
    [height, channels] and `columns` [width, channels] are the features.
    """

    content: ir.Value
    inverse: ir.Value
    rows: ir.Value
    columns: ir.Value

    @classmethod
    def write(cls, normed: NormedGrid) -> GridPositions:
        """Write the nodes, before the norm.

        The variance is of differences from the mean. Those of the features, f, are summed as
        sum(f^2) + mean * (channels * mean - 2 * sum(f)), by row and by column.
        """
        grid, norm = normed.grid, normed.norm
        tape = Tape(norm, module_of(norm))
        rows, columns = joined(tape, grid.rows), joined(tape, grid.columns)
        (height, _), (width, _), given = shape_of(rows), shape_of(columns), grid.content.value
        channels, one = len(grid.content.channels), [shape_of(given)[0], height, width, 1]
        target = tape.sizes((given, 0), (rows, 0), (columns, 0), channels)
        content = tape.op("Reshape", [given, target], [*one[:-1], channels])

        def summed(value: ir.Value) -> ir.Value:
            shape = [*shape_of(value)[:-1], 1]
            return tape.op("ReduceSum", [value, tape.integers([-1])], shape, keepdims=1)

        def over_grid(of_rows: ir.Value, of_columns: ir.Value) -> ir.Value:
            """Sums over channels, of a row and a column together: [1, height, width, 1]."""
            row = tape.op("Unsqueeze", [summed(of_rows), tape.integers([0, 2])], [1, height, 1, 1])
            column = tape.op("Unsqueeze", [summed(of_columns), tape.integers([0, 1])], [1, 1, width, 1])
            return tape.op("Add", [row, column], [1, *one[1:]])

        features = over_grid(rows, columns)
        squares = over_grid(*(tape.like(part, "Mul", part) for part in (rows, columns)))
        count, others = tape.number(1 / grid.count), tape.number(grid.count - channels)
        mean = tape.like(tape.like(summed(content), "Add", features), "Mul", count)
        centred = tape.like(content, "Sub", mean)
        rest = tape.like(tape.like(mean, "Mul", others), "Sub", tape.like(features, "Mul", tape.number(2)))
        rest = tape.like(tape.like(rest, "Mul", mean), "Add", squares)
        variance = tape.like(tape.like(summed(tape.like(centred, "Mul", centred)), "Add", rest), "Mul", count)
        epsilon = tape.number(norm.attributes.get_float("epsilon", 1e-5))
        deviation = tape.op("Sqrt", [tape.like(variance, "Add", epsilon)], one)
        return cls(content, tape.op("Reciprocal", [deviation], one), rows, columns)


def shape_of(value: ir.Value) -> list[int | ir.SymbolicDim]:
    """Sizes of a value whose shape is known."""
    assert value.shape is not None
    return list(value.shape)
