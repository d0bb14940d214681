"""Find attentions over a grid that are too large for all scores at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_deploy.export.attention.match import Attention, Projection, find_attentions
from perceiver_deploy.export.graph.flops import shape_at
from perceiver_deploy.export.graph.values import constant_array
from perceiver_deploy.export.passes.base import PassByWay
from perceiver_deploy.export.passes.forms import require_shapes
from perceiver_deploy.export.passes.grids.norm import NormedGrid, shape_of

LEAST_SCORES = 1 << 24
"""Scores of an attention, 64 MiB in float32, from which on they do not stay in a processor's caches."""
LEFT = "large grids left"


@dataclass(frozen=True)
class OverGrid:
    """An attention whose keys are the normed tokens of a grid, or whose queries are, over the keys given."""

    attention: Attention
    normed: NormedGrid
    keys: Projection | None


def find_large_grids(model: ir.Model, sizes: Mapping[str, int]) -> list[OverGrid]:
    """Attentions of at least `LEAST_SCORES` whose keys, or queries, are the normed tokens of a grid.

    They have the form of `grids.match`, with products reassociated.
    """
    found = []
    for attention in find_attentions(model):
        if attention.mask is not None or math.prod(shape_at(attention.scores.outputs[0], sizes)[1:]) < LEAST_SCORES:
            continue
        if (normed := _keys(attention)) is not None:
            found.append(OverGrid(attention, normed, None))
        elif (normed := _queries(attention)) is not None and (keys := _unbiased_key(attention)) is not None:
            found.append(OverGrid(attention, normed, keys))
    return found


class CountLargeGrids(PassByWay):
    """Leave the attentions of `find_large_grids` as they are, and say how many they are, where there are any."""

    name = LEFT

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes

    def requires(self, model: ir.Model) -> None:
        """Types and shapes."""
        require_shapes(model)

    def run_by_way(self, model: ir.Model) -> dict[str, int]:
        """Returns how many there are, and nothing where there are none."""
        left = len(find_large_grids(model, self._sizes))
        return {LEFT: left} if left else {}

    def ensures(self, model: ir.Model) -> None:
        """The graph as it was."""


def _keys(attention: Attention) -> NormedGrid | None:
    """The grid whose normed tokens are an attention's keys and values, as they are and whole for each head."""
    key, value, query = attention.key, attention.value, attention.scores.inputs[0]
    if key is None or value is None or key.weight or value.weight or key.source is not value.source:
        return None
    normed = NormedGrid.of(key.source)
    whole = normed is not None and query is not None and shape_of(query)[-1] == normed.grid.count
    return normed if whole else None


def _queries(attention: Attention) -> NormedGrid | None:
    """The grid whose normed tokens, with a channel of 1 perhaps, are the queries of one head."""
    query = attention.query
    if query is None or query.weight or attention.heads != 1 or attention.scale != 1.0:
        return None
    node = query.source.producer()
    if node is not None and node.op_type == "Pad":
        pads, one = constant_array(node.inputs[1]), constant_array(node.inputs[2])
        if pads is None or pads.tolist() != [0, 0, 0, 0, 0, 1] or one is None or one.item() != 1:
            return None
        return NormedGrid.of(node.inputs[0])
    return NormedGrid.of(query.source)


def _unbiased_key(attention: Attention) -> Projection | None:
    return attention.key if attention.key is not None and attention.key.bias is None else None
