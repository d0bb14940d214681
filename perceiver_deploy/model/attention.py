"""The one attention layer of a Perceiver: pre-norm attention and MLP, each with a residual.

Source: Perceiver IO (arXiv 2107.14795), section 3 and appendix E.2; deepmind-research/perceiver/perceiver.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from perceiver_deploy.model.config import AttentionConfig, Semantics


class GatedGELU(nn.Module):
    """The first half of the channels times the GELU of the second: [..., 2 * channels] to [..., channels].

    Source: GEGLU of "GLU Variants Improve Transformer" (arXiv 2002.05202), as used in lucidrains/perceiver-pytorch.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        """Gate."""
        values, gates = hidden.chunk(2, dim=-1)
        return values * functional.gelu(gates)


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "relu": nn.ReLU,
    "geglu": GatedGELU,
}


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a key mask [batch, keys] (nonzero: attend) into an additive bias [batch, 1, 1, keys].

    The bias of a masked key is DeepMind's: -1e30, or -1e4 in float16. It stays finite, so that a fully masked row
    is the same in every runtime.
    """
    masked = -1e4 if dtype == torch.float16 else -1e30
    bias = torch.zeros_like(mask, dtype=dtype).masked_fill(mask == 0, masked)
    return bias[:, None, None, :]


class AttentionLayer(nn.Module):
    """`x = query + attention(norm(query), norm(key_value))`, then `x + mlp(norm(x))`.

    Self-attention is the layer with `kv_channels` None: it has no norm of its own for keys and values. With
    `widening_factor` 0 there is no MLP. Where `query_mask` is 0, the attention gives zeros; residual and MLP remain.

    Shapes: query [batch, queries, q_channels], key_value [batch, keys, kv_channels], mask [batch, keys], query_mask
    [batch, queries], result [batch, queries, q_channels].
    """

    def __init__(
        self,
        config: AttentionConfig,
        semantics: Semantics,
        *,
        q_channels: int,
        kv_channels: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        key_channels = q_channels if kv_channels is None else kv_channels
        qk_channels = config.qk_channels or key_channels
        v_channels = config.v_channels or qk_channels
        for name, channels in (("qk_channels", qk_channels), ("v_channels", v_channels)):
            if channels % config.num_heads:
                raise ValueError(f"{name} {channels} is not divisible by num_heads {config.num_heads}")
        self.num_heads = config.num_heads
        self.use_query_residual = config.use_query_residual
        self.zero_fully_masked_rows = semantics.fully_masked_rows == "zeros"
        self.dropout = dropout
        eps = semantics.layer_norm_eps
        self.query_norm = nn.LayerNorm(q_channels, eps)
        self.key_value_norm = None if kv_channels is None else nn.LayerNorm(kv_channels, eps)
        self.query = nn.Linear(q_channels, qk_channels, bias=config.qkv_bias)
        self.key = nn.Linear(key_channels, qk_channels, bias=config.qkv_bias)
        self.value = nn.Linear(key_channels, v_channels, bias=config.qkv_bias)
        self.output = nn.Linear(v_channels, q_channels)
        self.mlp_norm: nn.LayerNorm | None = None
        self.mlp: nn.Sequential | None = None
        if hidden := config.widening_factor * q_channels:
            self.mlp_norm = nn.LayerNorm(q_channels, eps)
            self.mlp = nn.Sequential(
                nn.Linear(q_channels, 2 * hidden if semantics.activation == "geglu" else hidden),
                _ACTIVATIONS[semantics.activation](),
                nn.Linear(hidden, q_channels),
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal with variance 1 / fan-in and zero biases, as in the reference."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=1 / math.sqrt(module.in_features))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        query: Tensor,
        key_value: Tensor | None = None,
        mask: Tensor | None = None,
        query_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend; without `key_value` the query attends to itself."""
        normed = self.query_norm(query)
        keys = normed if self.key_value_norm is None else self.key_value_norm(key_value)
        attended = self._attend(self.query(normed), self.key(keys), self.value(keys), mask)
        if query_mask is not None:
            attended = attended * (query_mask != 0)[..., None].to(attended.dtype)
        attended = self.output(attended)
        if self.use_query_residual:
            attended = attended + query
        if self.mlp is None or self.mlp_norm is None:
            return attended
        return attended + self.mlp(self.mlp_norm(attended))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        result = functional.scaled_dot_product_attention(
            self._split_heads(query),
            self._split_heads(key),
            self._split_heads(value),
            attn_mask=None if mask is None else attention_bias(mask, query.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        result = result.transpose(1, 2).flatten(2)
        if mask is not None and self.zero_fully_masked_rows:
            result = result * (mask != 0).any(-1)[:, None, None].to(result.dtype)
        return result

    def _split_heads(self, tensor: Tensor) -> Tensor:
        batch, tokens, channels = tensor.shape
        return tensor.view(batch, tokens, self.num_heads, channels // self.num_heads).transpose(1, 2)
