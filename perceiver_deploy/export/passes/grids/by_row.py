"""Attend over a large grid row by row, with the position features of rows and columns apart."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from perceiver_deploy.export.passes.base import PassByWay
from perceiver_deploy.export.passes.forms import require_shapes
from perceiver_deploy.export.passes.grids.keys import attend_over_keys
from perceiver_deploy.export.passes.grids.large_grids import find_large_grids
from perceiver_deploy.export.passes.grids.norm import GridPositions, NormedGrid
from perceiver_deploy.export.passes.grids.queries import attend_from_queries

KEYS, QUERIES = "keys by row", "queries by row"


class AttendByRow(PassByWay):
    """Rewrite the attentions of `find_large_grids`.

    Where the grid has the keys and values, no more than a row's scores are held at a time; where it has the queries,
    only with `loop_over_queries`, for an engine that does not fuse attentions.
    """

    name = "attentions by row"

    def __init__(self, sizes: Mapping[str, int], *, loop_over_queries: bool) -> None:
        self._sizes, self._loop_over_queries = sizes, loop_over_queries

    def requires(self, model: ir.Model) -> None:
        """Types and shapes."""
        require_shapes(model)

    def run_by_way(self, model: ir.Model) -> dict[str, int]:
        """Returns how many attentions were changed, by what the grid has."""
        counts = {KEYS: 0, QUERIES: 0}
        written: dict[tuple[ir.Value, float], GridPositions] = {}
        for over in find_large_grids(model, self._sizes):
            positions = _positions(over.normed, written)
            if over.keys is None:
                attend_over_keys(over.attention, over.normed, positions)
                counts[KEYS] += 1
            else:
                in_loop = self._loop_over_queries
                attend_from_queries(over.attention, over.normed, positions, over.keys, in_loop=in_loop)
                counts[QUERIES] += 1
        return counts

    def ensures(self, model: ir.Model) -> None:
        """No such attention is left."""
        if left := [over.attention.module for over in find_large_grids(model, self._sizes)]:
            raise ir.passes.PostconditionError(f"All scores over a grid are held at once in {left}.")


def _positions(normed: NormedGrid, written: dict[tuple[ir.Value, float], GridPositions]) -> GridPositions:
    """Those of a grid, written once for all norms of it with the same epsilon."""
    key = normed.grid.tokens, normed.norm.attributes.get_float("epsilon", 1e-5)
    if key not in written:
        written[key] = GridPositions.write(normed)
    return written[key]
