"""A Loop over the rows of a grid."""

from __future__ import annotations

import onnx_ir as ir

from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.passes.grids.norm import GridPositions


def rows_body(tape: Tape) -> tuple[ir.Graph, ir.Value, ir.Value]:
    """An empty body of a Loop, with the number of the row, and whether to go on, which it gives back first."""
    row = tape.argument("row", [], ir.DataType.INT64)
    go = tape.argument("go", [], ir.DataType.BOOL)
    return ir.Graph([row, go], [], nodes=[], name=f"{tape.prefix}.rows"), row, go


def loop_over_rows(
    tape: Tape,
    positions: GridPositions,
    body: ir.Graph,
    starts: list[ir.Value],
    shapes: list[list[int | ir.SymbolicDim]],
) -> list[ir.Value]:
    """Run a body for every row; the states after the last one, then what it gave for each row, in these shapes."""
    count = tape.op("Squeeze", [tape.sizes((positions.rows, 0))], [], dtype=ir.DataType.INT64)
    return list(tape.ops("Loop", [count, tape.true(), *starts], shapes, body=body))
