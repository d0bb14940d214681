"""Few queries over all positions of a grid, row by row."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.attention_match import Attention, constant_array
from perceiver_deploy.export.grid_norm import NormedGrid, Positions, shape_of
from perceiver_deploy.export.row_loop import loop_over_rows, rows_body
from perceiver_deploy.export.tape import Tape


def attend_over_keys(attention: Attention, normed: NormedGrid, positions: Positions) -> None:
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

    With weights w = exp(score - maximum) it sums w * (content / deviation, 1, 1 / deviation)
    [batch, queries, content channels + 2], w / deviation by column [batch, queries, width], and w / deviation times the
    row's features [batch, queries, their channels].
    """

    def __init__(self, tape: Tape, positions: Positions, content: ir.Value, rows: ir.Value, columns: ir.Value) -> None:
        self._tape, self._positions = tape, positions
        batch, self._height, self._width, channels = shape_of(positions.content)
        assert isinstance(channels, int)
        first, self._queries, _ = shape_of(content)
        self._batch, self._channels = batch, channels
        inverse, shape = positions.inverse, [batch, self._height, self._width, channels]
        scaled = tape.op("Mul", [positions.content, inverse], shape)
        whole = tape.op("Shape", [inverse], [4], dtype=ir.DataType.INT64)
        ones = tape.op("Expand", [tape.number(1), whole], shape_of(inverse))
        self._tokens = tape.op("Concat", [scaled, ones, inverse], [*shape[:-1], channels + 2], axis=-1)
        zero = tape.op("Expand", [tape.number(0), tape.sizes((content, 0), (content, 1), 1)], [first, self._queries, 1])
        self._query = tape.op("Concat", [content, zero], [first, self._queries, channels + 1], axis=-1)
        self._of_rows = self._scores_of(rows, positions.rows)
        self._of_columns = self._scores_of(columns, positions.columns)

    def _scores_of(self, query: ir.Value, features: ir.Value) -> ir.Value:
        """Parts of scores [1 or batch, queries, height or width]."""
        first, queries, _ = shape_of(query)
        return self._tape.op(
            "MatMul", [query, self._tape.swapped(features, 0, 1)], [first, queries, shape_of(features)[0]], "query"
        )

    def write(self) -> list[ir.Value]:
        """The sums, after the last row."""
        tape, batch, queries = self._tape, self._batch, self._queries
        shapes = [
            [batch, queries, 1],
            [batch, queries, self._channels + 2],
            [batch, queries, self._width],
            [batch, queries, shape_of(self._positions.rows)[1]],
        ]
        lowest = float(np.finfo(tape.dtype.numpy()).min)
        body, row, go = rows_body(tape)
        inner = tape.inside(body, tape.prefix)
        names = ("most", "sums", "by_column", "by_row")
        states = [inner.argument(name, shape) for name, shape in zip(names, shapes, strict=True)]
        body.inputs.extend(states)
        body.outputs.extend([inner.op("Identity", [go], [], dtype=ir.DataType.BOOL), *self._row(inner, row, *states)])
        batch_and_queries = (self._tokens, 0), (self._query, 1)
        last: list[int | tuple[ir.Value, int]]
        last = [1, self._channels + 2, (self._tokens, 2), (self._positions.rows, 1)]
        starts = [
            tape.op("Expand", [tape.number(number), tape.sizes(*batch_and_queries, size)], shape)
            for number, size, shape in zip((lowest, 0, 0, 0), last, shapes, strict=True)
        ]
        return loop_over_rows(tape, self._positions, body, starts, shapes)[1:]

    def _row(
        self, tape: Tape, row: ir.Value, most: ir.Value, sums: ir.Value, by_column: ir.Value, by_row: ir.Value
    ) -> list[ir.Value]:
        """One step: the states after it."""
        batch, queries, width, channels = self._batch, self._queries, self._width, self._channels + 2
        first = shape_of(self._query)[0]
        tokens = tape.op("Gather", [self._tokens, row], [batch, width, channels], axis=1)
        turned = tape.swapped(tokens, 1, 2)
        inverse = tape.op("Gather", [turned, tape.integers([channels - 1])], [batch, 1, width], axis=1)
        index = tape.op("Unsqueeze", [row, tape.integers([0])], [1], dtype=ir.DataType.INT64)
        of_row = tape.op("Gather", [self._of_rows, index], [first, queries, 1], axis=2)
        query = tape.op("Concat", [self._query, of_row], [first, queries, channels], axis=-1)
        shape = [batch, queries, width]
        scores = tape.op("MatMul", [query, turned], shape)
        scores = tape.like(scores, "Add", tape.op("Mul", [self._of_columns, inverse], shape))
        highest = tape.op("ReduceMax", [scores, tape.integers([2])], [batch, queries, 1], keepdims=1)
        highest = tape.like(highest, "Max", most)
        kept = tape.op("Exp", [tape.like(most, "Sub", highest)], [batch, queries, 1])
        weights = tape.op("Exp", [tape.like(scores, "Sub", highest)], shape)
        found = tape.op("MatMul", [weights, tokens], [batch, queries, channels])
        total = tape.op("Gather", [found, tape.integers([channels - 1])], [batch, queries, 1], axis=2)
        features = tape.op("Gather", [self._positions.rows, row], [shape_of(by_row)[-1]], axis=0)

        def added(before: ir.Value, now: ir.Value) -> ir.Value:
            return tape.like(tape.like(before, "Mul", kept), "Add", now)

        return [
            highest,
            added(sums, found),
            added(by_column, tape.op("Mul", [weights, inverse], shape)),
            added(by_row, tape.op("Mul", [total, features], shape_of(by_row))),
        ]


def _values(tape: Tape, normed: NormedGrid, positions: Positions, sums: list[ir.Value]) -> ir.Value:
    """The tokens after the norm, weighted: [batch, queries, channels]."""
    found, by_column, by_row = sums
    batch, queries, channels = shape_of(found)
    assert isinstance(channels, int)
    sizes = [channels - 2, 1, 1]
    content, total, _ = tape.ops(
        "Split", [found, tape.integers(sizes)], [[batch, queries, size] for size in sizes], axis=-1
    )
    column = tape.op("MatMul", [by_column, positions.columns], [batch, queries, shape_of(positions.columns)[1]])
    parts = [tape.like(part, "Div", total) for part in (content, by_row, column)]
    result = tape.op("Concat", parts, [batch, queries, normed.grid.count], axis=-1)
    result = tape.linear(result, tape.weight("value.by_row", np.concatenate(normed.split(), axis=1).T), None, "value")
    return tape.like(result, "Add", tape.weight("value.by_row.bias", normed.bias), "value")


def _times(tape: Tape, vectors: ir.Value, matrix: np.ndarray, name: str) -> ir.Value:
    """Vectors [..., channels] times a matrix, stored as `name` where the vectors are."""
    if (stored := constant_array(vectors)) is not None:
        return tape.weight(name, stored.astype(np.float64) @ matrix)
    return tape.linear(vectors, tape.weight(f"{name}.weight", matrix), None, "query")
