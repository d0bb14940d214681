"""Few queries over all positions of a grid, row by row."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.attention.match import Attention
from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.graph.values import constant_array
from perceiver_deploy.export.passes.grids.norm import GridPositions, NormedGrid, shape_of
from perceiver_deploy.export.passes.grids.row_loop import loop_over_rows, rows_body


def attend_over_keys(attention: Attention, normed: NormedGrid, positions: GridPositions) -> None:
    """Few queries over all positions: a Loop over rows with a running maximum, so that one row's scores are held.

    It sums exp(score - maximum) times what the values are made of; the sums are scaled where the maximum rises.
    """
    tape = Tape(attention.weighted, attention.module)
    query, heads = attention.scores.inputs[0], attention.heads
    assert query is not None
    first, _, queries, channels = shape_of(query)
    assert isinstance(queries, int)
    assert isinstance(channels, int)
    parts = zip(("content", "row", "column"), normed.split(), strict=True)
    vectors = [_times(tape, query, matrix, f"query.by_{name}") for name, matrix in parts]
    merged = []
    for vector in vectors:
        target, size = tape.sizes((vector, 0), heads * queries, (vector, 3)), shape_of(vector)[-1]
        merged.append(tape.op("Reshape", [vector, target], [first, heads * queries, size]))
    sums = _RowLoop(tape, positions, *merged).write()
    result = _values(tape, normed, positions, sums)
    shape = [shape_of(result)[0], heads, queries, channels]
    result = tape.op("Reshape", [result, tape.integers([0, heads, queries, channels])], shape)
    attention.weighted.outputs[0].replace_all_uses_with(result)


class _RowLoop:
    """The Loop of `attend_over_keys`.

    With weights w = exp(score - maximum), it sums w [batch, queries, 1], w * content / deviation
    [batch, queries, content channels], w / deviation by column [batch, queries, width], and w / deviation times the
    row's features [batch, queries, their channels].
    """

    def __init__(
        self, tape: Tape, positions: GridPositions, content: ir.Value, rows: ir.Value, columns: ir.Value
    ) -> None:
        self._tape, self._positions, self._query = tape, positions, content
        self._batch, _, self._width, channels = shape_of(positions.content)
        assert isinstance(channels, int)
        self._channels = channels
        self._first, self._queries, _ = shape_of(content)
        self._content = tape.like(positions.content, "Mul", positions.inverse)
        self._of_rows = self._scores_of(rows, positions.rows)
        self._of_columns = self._scores_of(columns, positions.columns)

    def _scores_of(self, query: ir.Value, features: ir.Value) -> ir.Value:
        """Parts of scores [1 or batch, queries, height or width], times the deviation."""
        size = shape_of(features)[0]
        turned = self._tape.swapped(features, 0, 1)
        return self._tape.op("MatMul", [query, turned], [self._first, self._queries, size], "query")

    def write(self) -> list[ir.Value]:
        """The sums, after the last row."""
        tape, content, rows = self._tape, self._content, self._positions.rows
        names = ("most", "sum", "by_content", "by_column", "by_row")
        sizes: list[int | tuple[ir.Value, int]] = [1, 1, (content, 3), (content, 2), (rows, 1)]
        shapes = [
            [self._batch, self._queries, size if isinstance(size, int) else shape_of(size[0])[size[1]]]
            for size in sizes
        ]
        body, row, go = rows_body(tape)
        inner = tape.inside(body, tape.prefix)
        states = [inner.argument(name, shape) for name, shape in zip(names, shapes, strict=True)]
        body.inputs.extend(states)
        body.outputs.extend([inner.op("Identity", [go], [], dtype=ir.DataType.BOOL), *self._row(inner, row, *states)])
        lowest = float(np.finfo(tape.dtype.numpy()).min)
        starts = [
            tape.op("Expand", [tape.number(number), tape.sizes((content, 0), (self._query, 1), size)], shape)
            for number, size, shape in zip((lowest, 0, 0, 0, 0), sizes, shapes, strict=True)
        ]
        return loop_over_rows(tape, self._positions, body, starts, shapes)[1:]

    def _row(
        self,
        tape: Tape,
        row: ir.Value,
        most: ir.Value,
        before: ir.Value,
        by_content: ir.Value,
        by_column: ir.Value,
        by_row: ir.Value,
    ) -> list[ir.Value]:
        """One step: the states after it."""
        batch, queries, width, channels = self._batch, self._queries, self._width, self._channels
        shape, one = [batch, queries, width], [batch, queries, 1]
        content = tape.op("Gather", [self._content, row], [batch, width, channels], axis=1)
        inverse = tape.op("Gather", [self._positions.inverse, row], [batch, width, 1], axis=1)
        inverses = tape.swapped(inverse, 1, 2)
        index = tape.op("Unsqueeze", [row, tape.integers([0])], [1], dtype=ir.DataType.INT64)
        of_row = tape.op("Gather", [self._of_rows, index], [self._first, queries, 1], axis=2)

        # one product for content and row: a sum over one channel more costs less than an addition of scores
        query = tape.op("Concat", [self._query, of_row], [self._first, queries, channels + 1], axis=-1)
        keys = tape.op("Concat", [tape.swapped(content, 1, 2), inverses], [batch, channels + 1, width], axis=1)
        scores = tape.op("MatMul", [query, keys], shape)
        scores = tape.like(scores, "Add", tape.op("Mul", [self._of_columns, inverses], shape))

        highest = tape.op("ReduceMax", [scores, tape.integers([2])], one, keepdims=1)
        highest = tape.like(highest, "Max", most)
        kept = tape.like(tape.like(most, "Sub", highest), "Exp")
        weights = tape.like(tape.like(scores, "Sub", highest), "Exp")
        in_all = tape.op("MatMul", [weights, inverse], one)
        features = tape.op("Gather", [self._positions.rows, row], [shape_of(by_row)[-1]], axis=0)

        def added(old: ir.Value, new: ir.Value) -> ir.Value:
            return tape.like(tape.like(old, "Mul", kept), "Add", new)

        return [
            highest,
            added(before, tape.op("ReduceSum", [weights, tape.integers([2])], one, keepdims=1)),
            added(by_content, tape.op("MatMul", [weights, content], shape_of(by_content))),
            added(by_column, tape.op("Mul", [weights, inverses], shape)),
            added(by_row, tape.op("Mul", [in_all, features], shape_of(by_row))),
        ]


def _values(tape: Tape, normed: NormedGrid, positions: GridPositions, sums: list[ir.Value]) -> ir.Value:
    """The tokens after the norm, weighted: [batch, queries, channels]."""
    total, by_content, by_column, by_row = sums
    batch, queries, _ = shape_of(by_content)
    of_columns = tape.op("MatMul", [by_column, positions.columns], [batch, queries, shape_of(positions.columns)[1]])
    parts = [tape.like(part, "Div", total) for part in (by_content, by_row, of_columns)]
    result = tape.op("Concat", parts, [batch, queries, normed.grid.count], axis=-1)
    result = tape.linear(result, tape.weight("value.by_row", np.concatenate(normed.split(), axis=1).T), None, "value")
    return tape.like(result, "Add", tape.weight("value.by_row.bias", normed.bias), "value")


def _times(tape: Tape, vectors: ir.Value, matrix: np.ndarray, name: str) -> ir.Value:
    """Vectors [..., channels] times a matrix, stored as `name` where the vectors are."""
    if (stored := constant_array(vectors)) is not None:
        return tape.weight(name, stored.astype(np.float64) @ matrix)
    return tape.linear(vectors, tape.weight(f"{name}.weight", matrix), None, "query")
