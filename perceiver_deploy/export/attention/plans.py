"""Which way of associating the products of an attention is the cheapest.

With tokens x [tokens, kv channels], queries z [queries, q channels] and head h of the weights:

    scores   as they were         (z Wq) (x Wk)^T
             keys unprojected     (z (Wq_h Wk_h^T)) x^T
             queries unprojected  z (x (Wk_h Wq_h^T))^T
    values   as they were         (softmax (x Wv)) Wo
             late                 (softmax x) (Wv_h Wo_h)
             early                softmax (x (Wv Wo)), one head only
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

AS_IT_WAS = "as it was"
KEYS_UNPROJECTED = "keys unprojected"
QUERIES_UNPROJECTED = "queries unprojected"
LATE_VALUES = "values projected late"
EARLY_OUTPUT = "output projected early"

LEAST_GAIN = 0.02
"""A change that saves less is not made: it would be lost in what the model of costs leaves out."""

MULTIPLY_ADDS_PER_ELEMENT = 16
"""What moving one float costs: 4 multiply-adds a byte, as of a CPU with 80 GMAC/s and 20 GB/s. GPUs have more."""


@dataclass(frozen=True)
class AttentionSizes:
    """What the cost of an attention depends on. `stored_query`: the query's projection is computed while exporting."""

    heads: int
    queries: int
    tokens: int
    q_channels: int
    kv_channels: int
    qk_channels: int
    v_channels: int
    out_channels: int
    stored_query: bool


@dataclass(frozen=True)
class Cost:
    """Cost for each attention, and what is spent once for all attentions that share a projection."""

    each: int
    once: int = 0


def score_costs(sizes: AttentionSizes) -> dict[str, Cost]:
    """Cost of the scores, by the way they are associated."""
    s = sizes
    one_more = s.q_channels + 1
    return {
        AS_IT_WAS: Cost(
            (0 if s.stored_query else _product(s.queries, s.q_channels, s.qk_channels))
            + s.heads * _product(s.queries, s.qk_channels // s.heads, s.tokens),
            once=_product(s.tokens, s.kv_channels, s.qk_channels),
        ),
        KEYS_UNPROJECTED: Cost(
            (0 if s.stored_query else _product(s.queries, s.q_channels, s.heads * s.kv_channels))
            + s.heads * _product(s.queries, s.kv_channels, s.tokens)
        ),
        QUERIES_UNPROJECTED: Cost(
            s.heads * _product(s.queries, one_more, s.tokens),
            once=_product(s.tokens, s.kv_channels, s.heads * one_more),
        ),
    }


def value_costs(sizes: AttentionSizes) -> dict[str, Cost]:
    """Cost of the values and of the output projection, by the way they are associated."""
    s = sizes
    costs = {
        AS_IT_WAS: Cost(
            s.heads * _product(s.queries, s.tokens, s.v_channels // s.heads)
            + _product(s.queries, s.v_channels, s.out_channels),
            once=_product(s.tokens, s.kv_channels, s.v_channels),
        ),
        LATE_VALUES: Cost(
            s.heads * _product(s.queries, s.tokens, s.kv_channels)
            + _product(s.queries, s.heads * s.kv_channels, s.out_channels)
        ),
    }
    if s.heads == 1:
        costs[EARLY_OUTPUT] = Cost(
            _product(s.queries, s.tokens, s.out_channels), once=_product(s.tokens, s.kv_channels, s.out_channels)
        )
    return costs


def cheapest(costs: list[Mapping[str, Cost]]) -> str:
    """The way that costs the attentions of a group, which share a projection, least in sum."""
    total = {way: sum(cost[way].each for cost in costs) + costs[0][way].once for way in costs[0]}
    best = min(total, key=lambda way: total[way])
    return best if total[best] <= (1 - LEAST_GAIN) * total[AS_IT_WAS] else AS_IT_WAS


def _product(rows: int, summed: int, columns: int) -> int:
    """Multiply-adds of a matrix product, and the elements it reads and writes."""
    moved = rows * summed + summed * columns + rows * columns
    return rows * summed * columns + MULTIPLY_ADDS_PER_ELEMENT * moved
