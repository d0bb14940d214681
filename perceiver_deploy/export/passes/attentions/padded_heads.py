"""Pad heads with zeros to the sizes that fused kernels of TensorRT take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.attention.fusibility import HEAD_MOST, HEAD_MULTIPLE
from perceiver_deploy.export.attention.match import Attention, Output, Projection, find_attentions
from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.graph.values import constant_array
from perceiver_deploy.export.passes.base import GraphPass
from perceiver_deploy.export.passes.forms import require_shapes, require_weights_as_read


class PadHeads(GraphPass):
    """Pad the heads of attentions to a multiple of 8 channels, up to 256.

    Zeros add nothing to a score, and meet rows of zeros in the output's weight; the scale stays that of the original
    size. An attention is left alone unless query, key, value and output are projections of its own.
    """

    name = "padded heads"

    def requires(self, model: ir.Model) -> None:
        """Types and shapes; weights as MatMul reads them."""
        require_shapes(model)
        require_weights_as_read(model)

    def run(self, model: ir.Model) -> int:
        """Returns how many attentions were padded."""
        padded = 0
        for attention in find_attentions(model):
            if (found := _Unpadded.of(attention)) is not None:
                _pad_scores(attention, found.query, found.key, found.qk_size)
                _pad_values(attention, found.value, found.output, found.v_size)
                padded += 1
        return padded

    def ensures(self, model: ir.Model) -> None:
        """No such attention is left with heads of another size."""
        if left := [a.module for a in find_attentions(model) if _Unpadded.of(a) is not None]:
            raise ir.passes.PostconditionError(f"Heads are not padded in {left}.")


@dataclass(frozen=True)
class _Unpadded:
    """Projections of an attention that gains by padding, and the sizes that its heads are padded to."""

    query: Projection
    key: Projection
    value: Projection
    output: Output
    qk_size: int
    v_size: int

    @classmethod
    def of(cls, attention: Attention) -> _Unpadded | None:
        query, key, value, output = attention.query, attention.key, attention.value, attention.output
        if query is None or key is None or value is None or output is None or attention.scores.inputs[0] is None:
            return None
        qk_size, v_size = _head_size(query, attention.heads), _head_size(value, attention.heads)
        if not qk_size or not v_size or qk_size != _head_size(key, attention.heads):
            return None
        targets = [-(-size // HEAD_MULTIPLE) * HEAD_MULTIPLE for size in (qk_size, v_size)]
        if targets == [qk_size, v_size] or max(targets) > HEAD_MOST:
            return None
        return cls(query, key, value, output, *targets)


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
