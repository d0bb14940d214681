"""Pad heads with zeros to the sizes that fused kernels of TensorRT take."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from perceiver_deploy.export.attention.fusibility import HEAD_MOST, HEAD_MULTIPLE
from perceiver_deploy.export.attention.match import Attention, Output, Projection, find_attentions
from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.graph.values import constant_array


def pad_heads(model: ir.Model) -> int:
    """Pad the heads of attentions to a multiple of 8 channels, up to 256.

    Zeros add nothing to a score, and meet rows of zeros in the output's weight; the scale stays that of the original
    size. An attention is left alone unless query, key, value and output are projections of its own.

    Requires: weights as MatMul reads them. Ensures: the same function. Returns how many attentions were padded.
    """
    padded = 0
    for attention in find_attentions(model):
        query, key, value, output = attention.query, attention.key, attention.value, attention.output
        if query is None or key is None or value is None or output is None or attention.scores.inputs[0] is None:
            continue
        qk_size, v_size = _head_size(query, attention.heads), _head_size(value, attention.heads)
        if not qk_size or not v_size or qk_size != _head_size(key, attention.heads):
            continue
        targets = [-(-size // HEAD_MULTIPLE) * HEAD_MULTIPLE for size in (qk_size, v_size)]
        if targets != [qk_size, v_size] and max(targets) <= HEAD_MOST:
            _pad_scores(attention, query, key, targets[0])
            _pad_values(attention, value, output, targets[1])
            padded += 1
    common.RemoveUnusedNodesPass()(model)
    return padded


def _head_size(side: Projection, heads: int) -> int:
    """Channels of a head, by the weight; 0 without one."""
    weight = constant_array(side.weight)
    return 0 if weight is None else int(weight.shape[1]) // heads


def _pad_scores(attention: Attention, query: Projection, key: Projection, size: int) -> None:
    scores = attention.scores
    tape = Tape(scores, attention.module)
    queries = _padded(tape, query, attention.heads, size, "query")
    scaled = scores.inputs[0].producer() if scores.inputs[0] is not None else None
    if scaled is not None and scaled.op_type == "Mul" and scaled.inputs[1] is not None:
        queries = tape.like(queries, "Mul", scaled.inputs[1])
    scores.replace_input_with(0, queries)
    scores.replace_input_with(1, tape.swapped(_padded(tape, key, attention.heads, size, "key"), 2, 3))


def _pad_values(attention: Attention, value: Projection, output: Output, size: int) -> None:
    weighted, heads = attention.weighted, attention.heads
    weighted.replace_input_with(1, _padded(Tape(weighted, attention.module), value, heads, size, "value"))
    result = weighted.outputs[0]
    assert result.shape is not None
    result.shape = ir.Shape([*result.shape[:3], size])
    tape = Tape(output.matmul, attention.module)
    tokens = tape.without_heads(result)
    for factor in output.factors:
        tokens = tape.like(tokens, "Mul", factor)
    weight = _padded_array(output.weight, heads, size, axis=0)
    output.result.replace_all_uses_with(
        tape.linear(tokens, tape.weight("output.weight.padded", weight), output.bias, "output")
    )


def _padded(tape: Tape, side: Projection, heads: int, size: int, name: str) -> ir.Value:
    """One side of an attention with heads of `size` channels: [batch, heads, tokens, size]."""
    weight, bias = tape.weight(f"{name}.weight.padded", _padded_array(side.weight, heads, size, axis=1)), None
    if side.bias is not None:
        bias = tape.weight(f"{name}.bias.padded", _padded_array(side.bias, heads, size, axis=0))
    return tape.with_heads(tape.linear(side.source, weight, bias, name), heads)


def _padded_array(value: ir.Value | None, heads: int, size: int, axis: int) -> np.ndarray:
    """A weight or bias whose `axis` is heads * channels, each head filled up with zeros."""
    array = constant_array(value)
    assert array is not None
    shape = array.shape
    split = array.reshape(*shape[:axis], heads, -1, *shape[axis + 1 :])
    widths = [(0, size - split.shape[axis + 1] if at == axis + 1 else 0) for at in range(split.ndim)]
    return np.pad(split, widths).reshape(*shape[:axis], heads * size, *shape[axis + 1 :])
