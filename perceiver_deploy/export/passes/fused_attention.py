"""Write attentions as one operator, for engines that take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as common
from onnxscript import version_converter

from perceiver_deploy.export.attention.fusibility import ATTENTION_OPSET
from perceiver_deploy.export.attention.match import Attention, find_attentions
from perceiver_deploy.export.graph.tape import Tape, store
from perceiver_deploy.export.graph.values import constant_array, sole_user


def fuse_for_onnxruntime(model: ir.Model) -> int:
    """Replace attentions by com.microsoft's `MultiHeadAttention`, whose CPU kernel never holds all scores at once.

    Requires: the form of `attention_match`. Ensures: the same function. An attention with a mask stays as it is: the
    operator wants a mask spelled out for every query, and with one it computes all scores. Returns how many were
    replaced. Source: onnxruntime, contrib_ops/cpu/bert/multihead_attention.cc.
    """
    fused = 0
    for attention in find_attentions(model):
        if attention.mask is None and (operands := _operands(attention)) is not None:
            _replace(attention, operands, "MultiHeadAttention", domain="com.microsoft", num_heads=operands.heads)
            fused += 1
    if fused:
        model.graph.opset_imports["com.microsoft"] = 1
    common.RemoveUnusedNodesPass()(model)
    return fused


def fuse_for_opset23(model: ir.Model) -> int:
    """Replace attentions by ONNX's `Attention`, and raise the opset to the first that has it.

    Requires: the form of `attention_match`. Ensures: the same function; a mask has the axis of the queries spelled out,
    which onnxruntime asks for. Returns how many were replaced.
    """
    if model.graph.opset_imports[""] < ATTENTION_OPSET:
        version_converter.convert_version(model, ATTENTION_OPSET)
    fused = 0
    for attention in find_attentions(model):
        if (operands := _operands(attention)) is not None:
            _replace(attention, operands, "Attention", q_num_heads=operands.heads, kv_num_heads=operands.heads)
            fused += 1
    common.RemoveUnusedNodesPass()(model)
    return fused


@dataclass(frozen=True)
class _Operands:
    """Query, key and value as tokens [batch, tokens, heads * head size]; the query's batch may be 1."""

    query: ir.Value
    key: ir.Value
    value: ir.Value
    heads: int
    scale: float


def _operands(attention: Attention) -> _Operands | None:
    """The operands of one operator, or None where there are none.

    Heads that share one key and one value become queries of one head: [batch, heads, queries, channels] is
    [batch, heads * queries, channels] in memory.
    """
    query, key, value = attention.scores.inputs[0], attention.key, attention.value
    if query is None or key is None or value is None:
        return None
    heads, (batch, _, queries, _) = attention.heads, _shape(query)
    size, v_size = _channels(query), _channels(attention.weighted.outputs[0])
    sizes = _channels(key.result), _channels(value.result)
    if sizes == (size, v_size):
        if heads == 1 and attention.query is not None:
            return _Operands(attention.query.result, key.result, value.result, 1, attention.scale)
        if isinstance(queries, int):
            tape = Tape(attention.scores, attention.module)
            rows = tape.op("Reshape", [query, tape.integers([0, -1, size])], [batch, heads * queries, size])
            return _Operands(rows, key.result, value.result, 1, 1.0)
    elif sizes == (heads * size, heads * v_size):
        if attention.query is not None:
            return _Operands(attention.query.result, key.result, value.result, heads, attention.scale)
        if (stored := constant_array(query)) is not None and attention.scores.graph is not None:
            tokens = stored.transpose(0, 2, 1, 3).reshape(1, -1, heads * size)
            query = store(attention.scores.graph, f"{query.name}.tokens", tokens)
            return _Operands(query, key.result, value.result, heads, 1.0)
    return None


def _replace(attention: Attention, operands: _Operands, operator: str, domain: str = "", **attributes: Any) -> None:
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
