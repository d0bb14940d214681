"""Write an attention as one operator, for engines that take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import onnx_ir as ir

from perceiver_deploy.export.attention.match import Attention
from perceiver_deploy.export.graph.tape import Tape, store
from perceiver_deploy.export.graph.values import constant_array, sole_user


@dataclass(frozen=True)
class Operands:
    """Query, key and value as tokens [batch, tokens, heads * head size]; the query's batch may be 1."""

    query: ir.Value
    key: ir.Value
    value: ir.Value
    heads: int
    scale: float


def find_operands(attention: Attention) -> Callable[[], Operands] | None:
    """What writes the operands of one operator, or None where there are none.

    Heads that share one key and one value become queries of one head: [batch, heads, queries, channels] is
    [batch, heads * queries, channels] in memory.
    """
    query, key, value = attention.scores.inputs[0], attention.key, attention.value
    if query is None or key is None or value is None:
        return None
    heads, queries = attention.heads, _shape(query)[2]
    size, v_size = _channels(query), _channels(attention.weighted.outputs[0])
    sizes = _channels(key.result), _channels(value.result)
    one_head, own_heads = sizes == (size, v_size), sizes == (heads * size, heads * v_size)
    if own_heads and attention.query is not None:
        return partial(Operands, attention.query.result, key.result, value.result, heads, attention.scale)
    if one_head and isinstance(queries, int):
        return partial(_of_one_head, attention, query, key.result, value.result)
    if own_heads and not one_head and constant_array(query) is not None:
        return partial(_of_stored_query, attention, query, key.result, value.result)
    return None


def _of_one_head(attention: Attention, query: ir.Value, key: ir.Value, value: ir.Value) -> Operands:
    batch, _, queries, size = _shape(query)
    assert isinstance(queries, int)
    assert isinstance(size, int)
    tape = Tape(attention.scores, attention.module)
    rows = tape.op("Reshape", [query, tape.integers([0, -1, size])], [batch, attention.heads * queries, size])
    return Operands(rows, key, value, 1, 1.0)


def _of_stored_query(attention: Attention, query: ir.Value, key: ir.Value, value: ir.Value) -> Operands:
    stored, graph = constant_array(query), attention.scores.graph
    assert stored is not None
    assert isinstance(graph, ir.Graph)
    tokens = stored.transpose(0, 2, 1, 3).reshape(1, -1, attention.heads * stored.shape[3])
    return Operands(store(graph, f"{query.name}.tokens", tokens), key, value, attention.heads, 1.0)


def write_operator(
    attention: Attention, operands: Operands, operator: str, domain: str = "", **attributes: Any
) -> None:
    """Put one operator in the place of an attention's products."""
    tape = Tape(attention.weighted, attention.module)
    query = _for_every_sample(tape, operands.query, operands.key)
    inputs = [query, operands.key, operands.value]
    if attention.mask is not None:
        inputs.append(_for_every_query(tape, attention.mask, query))
    result, batch = attention.weighted.outputs[0], _shape(query)[0]
    heads, queries, v_size = attention.heads, _shape(result)[2], _channels(result)
    fused = tape.op(
        operator, inputs, [batch, _shape(query)[1], operands.heads * v_size], scale=operands.scale, **attributes
    )
    node = fused.producer()
    assert node is not None
    node.domain = domain
    merged = _merged_heads(attention)
    if heads == operands.heads and merged is not None:
        merged.replace_all_uses_with(fused)
        return
    split = tape.op("Reshape", [fused, tape.integers([0, heads, -1, v_size])], [batch, heads, queries, v_size])
    result.replace_all_uses_with(split)


def _merged_heads(attention: Attention) -> ir.Value | None:
    """[batch, queries, channels]: the heads' results side by side, where that is how they are read."""
    transposed = sole_user(attention.weighted.outputs[0])
    merged = None if transposed is None or transposed.op_type != "Transpose" else sole_user(transposed.outputs[0])
    return merged.outputs[0] if merged is not None and merged.op_type == "Reshape" else None


def _for_every_sample(tape: Tape, query: ir.Value, key: ir.Value) -> ir.Value:
    """A query of batch 1, repeated over the batch of the key."""
    batch, (own, *rest) = _shape(key)[0], _shape(query)
    if own == batch:
        return query
    return tape.op("Expand", [query, tape.sizes((key, 0), 1, 1)], [batch, *rest])


def _for_every_query(tape: Tape, mask: ir.Value, query: ir.Value) -> ir.Value:
    """A mask [batch, 1, 1, tokens], repeated over the queries."""
    batch, _, _, tokens = _shape(mask)
    return tape.op("Expand", [mask, tape.sizes(1, 1, (query, 1), 1)], [batch, 1, _shape(query)[1], tokens])


def _shape(value: ir.Value) -> ir.Shape:
    assert value.shape is not None
    return value.shape


def _channels(value: ir.Value) -> int:
    channels = _shape(value)[-1]
    assert isinstance(channels, int)
    return channels
