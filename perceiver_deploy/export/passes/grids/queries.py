"""All positions of a grid over few keys."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.attention.match import Attention, Projection
from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.graph.values import float64
from perceiver_deploy.export.passes.grids.norm import GridPositions, NormedGrid, shape_of
from perceiver_deploy.export.passes.grids.row_loop import loop_over_rows, rows_body


def attend_from_queries(
    attention: Attention, normed: NormedGrid, positions: GridPositions, key: Projection, *, in_loop: bool
) -> None:
    """All positions over few keys: what rows and columns score is added to the scores of the content.

    `in_loop`: in a Loop over rows, for an engine that would hold the scores of all positions.
    """
    tape = Tape(attention.weighted, attention.module)
    values, old = attention.weighted.inputs[1], attention.weighted.outputs[0]
    assert values is not None
    scoring = _QueryScores.write(tape, normed, positions, key)
    batch, height, width, _ = shape_of(positions.content)
    shape = [batch, height, width, shape_of(old)[-1]]
    if in_loop:
        body, row, go = rows_body(tape)
        inner = tape.inside(body, tape.prefix)
        result = inner.op("MatMul", [scoring.at(inner, row).weights(inner), values], [batch, 1, *shape[2:]])
        result = inner.op("Squeeze", [result, tape.integers([1])], [batch, *shape[2:]])
        body.outputs.extend([inner.op("Identity", [go], [], dtype=ir.DataType.BOOL), result])
        result = loop_over_rows(tape, positions, body, [], [[height, batch, *shape[2:]]])[0]
        result = tape.swapped(result, 0, 1)
    else:
        result = tape.op("MatMul", [scoring.weights(tape), values], shape)
    channels = shape[-1]
    assert isinstance(channels, int)
    old.replace_all_uses_with(tape.op("Reshape", [result, tape.integers([0, 1, -1, channels])], shape_of(old)))


@dataclass(frozen=True)
class _QueryScores:
    """What gives the scores of queries [batch, height, width] with some keys; `height` is 1 for a single row.

    `content` are keys [batch, 1, content channels, keys]; `rows` [batch, height, 1, keys], `columns`
    [batch, 1, width, keys] and `bias` [batch, 1, 1, keys] are parts of scores.
    """

    positions: GridPositions
    content: ir.Value
    rows: ir.Value
    columns: ir.Value
    bias: ir.Value

    @classmethod
    def write(cls, tape: Tape, normed: NormedGrid, positions: GridPositions, key: Projection) -> _QueryScores:
        batch, height, width, channels = shape_of(positions.content)
        _, keys, given = shape_of(key.result)
        assert isinstance(given, int)
        ones = given - normed.grid.count  # one more channel where the queries have one of 1
        of_content, of_rows, of_columns = (np.pad(matrix, ((0, ones), (0, 0))) for matrix in normed.split())
        matrices = {"row": of_rows, "column": of_columns, "content": of_content}
        matrices["bias"] = np.concatenate([normed.bias, np.ones(ones)])[:, None]
        turned = {name: tape.swapped(_projected(tape, key, matrix, name), 1, 2) for name, matrix in matrices.items()}
        rows = tape.op("MatMul", [positions.rows, turned["row"]], [batch, height, keys], "key")
        columns = tape.op("MatMul", [positions.columns, turned["column"]], [batch, width, keys], "key")
        return cls(
            positions,
            tape.op("Unsqueeze", [turned["content"], tape.integers([1])], [batch, 1, channels, keys]),
            tape.op("Unsqueeze", [rows, tape.integers([2])], [batch, height, 1, keys]),
            tape.op("Unsqueeze", [columns, tape.integers([1])], [batch, 1, width, keys]),
            tape.op("Unsqueeze", [turned["bias"], tape.integers([1])], [batch, 1, 1, keys]),
        )

    def at(self, tape: Tape, row: ir.Value) -> _QueryScores:
        """Those of one row."""
        index = tape.op("Unsqueeze", [row, tape.integers([0])], [1], dtype=ir.DataType.INT64)

        def of_row(value: ir.Value) -> ir.Value:
            batch, _, *rest = shape_of(value)
            return tape.op("Gather", [value, index], [batch, 1, *rest], axis=1)

        positions = dataclasses.replace(
            self.positions, content=of_row(self.positions.content), inverse=of_row(self.positions.inverse)
        )
        return dataclasses.replace(self, positions=positions, rows=of_row(self.rows))

    def weights(self, tape: Tape) -> ir.Value:
        """Softmax of the scores over the keys [batch, height, width, keys]."""
        queries, keys = self.positions.content, shape_of(self.content)[-1]
        scores = tape.op("MatMul", [queries, self.content], [*shape_of(queries)[:-1], keys])
        scores = tape.like(tape.like(scores, "Add", self.rows), "Add", self.columns)
        scores = tape.like(tape.like(scores, "Mul", self.positions.inverse), "Add", self.bias)
        return tape.op("Softmax", [scores], shape_of(scores), axis=-1)


def _projected(tape: Tape, key: Projection, matrix: np.ndarray, name: str) -> ir.Value:
    """Keys times a matrix, which the keys' weight takes in."""
    if key.weight is None:
        return tape.linear(key.source, tape.weight(f"key.by_{name}", matrix), None, "key")
    return tape.linear(key.source, tape.weight(f"key.by_{name}", float64(key.weight) @ matrix), None, "key")
