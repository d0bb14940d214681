"""How `scaled_dot_product_attention` is written in ONNX: plain operators that every engine reads and can fuse."""

# No `from __future__ import annotations` here: onnxscript reads the annotations of the function below.
import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset20 as op


def _attention(  # type: ignore[no-untyped-def]
    query,
    key,
    value,
    attn_mask=None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
):
    """softmax(query key^T / sqrt(head size) + mask) value, on [batch, heads, tokens, channels]."""
    if dropout_p or is_causal or enable_gqa:
        raise NotImplementedError("dropout, causal and grouped attention have no place in an exported Perceiver")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scaled = op.Mul(query, op.CastLike(op.Constant(value_float=scale), query))
    scores = op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2]))
    if attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: _attention,
}
