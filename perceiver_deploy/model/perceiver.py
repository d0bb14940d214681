"""What a Perceiver is: an attention layer, an encoder and a decoder made of it, and a classifier made of both.

    latents = self_attends(cross_attention(latents, tokens))    PerceiverEncoder, in blocks
    outputs = projection(cross_attention(queries, latents))     PerceiverDecoder
    logits  = projection(mean(latents))                         MeanDecoder

The cost is linear in the number of tokens and in that of queries: only latents attend to each other. The models of
`tasks/` add what makes tokens of an input (`inputs/`) and queries of an output.

Sources: Perceiver (arXiv 2103.03206), section 3; Perceiver IO (arXiv 2107.14795), section 3 and appendix E.2;
deepmind-research/perceiver/perceiver.py. `Semantics` says where published implementations differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from perceiver_deploy.bundle.manifest import Signature, StageName
from perceiver_deploy.model.config import (
    AttentionConfig,
    DecoderConfig,
    MeanDecoderConfig,
    PerceiverConfig,
    Semantics,
    Sharing,
)
from perceiver_deploy.model.stages import split_signature


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
    """`x = query + output(softmax(q k' / sqrt(d) + bias) v)`, then `x + mlp(norm(x))`.

    q is a projection of norm(query), k and v are projections of norm(key_value); each is cut into `num_heads` heads,
    d channels wide. Without `use_query_residual` the first sum is left out; with `widening_factor` 0 there is no MLP.
    Self-attention is the layer with `kv_channels` None: it has no norm of its own for keys and values.

    q and k have `qk_channels`, by default those of the keys' input; v has `v_channels`, by default `qk_channels`. Where
    `query_mask` is 0, the attention gives zeros; residual and MLP remain.

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
        """[batch, tokens, channels] to [batch, heads, tokens, channels / heads]."""
        batch, tokens, channels = tensor.shape
        return tensor.view(batch, tokens, self.num_heads, channels // self.num_heads).transpose(1, 2)


class PerceiverEncoder(nn.Module):
    """Tokens [batch, tokens, channels] and mask [batch, tokens] to latents [batch, num_latents, d_latents].

    The trainable latents pass `num_blocks` blocks of `num_self_attends_per_block` layers; each of the first
    `num_cross_attentions` blocks has a cross-attention to the tokens before it. Perceiver IO has one cross-attention
    and one set of weights for all blocks; Perceiver has several, which share weights from the second on.

    `cross_attention` and `self_attends` are the first cross-attention and the first block; `later_cross_attentions`
    and `later_blocks` hold what does not share their weights. With `gradient_checkpointing` True, self-attention layers
    are recomputed in the backward pass.
    """

    def __init__(self, config: PerceiverConfig, input_channels: int) -> None:
        super().__init__()
        encoder = self.config = config.encoder
        self.gradient_checkpointing = False
        self.latents = nn.Parameter(torch.empty(encoder.num_latents, encoder.d_latents))
        nn.init.trunc_normal_(self.latents, std=config.initializer_range)

        def layer(attention: AttentionConfig, kv_channels: int | None) -> AttentionLayer:
            return AttentionLayer(
                attention,
                config.semantics,
                q_channels=encoder.d_latents,
                kv_channels=kv_channels,
                dropout=config.dropout,
            )

        def block() -> nn.ModuleList:
            return nn.ModuleList(layer(encoder.self_attention, None) for _ in range(encoder.num_self_attends_per_block))

        later_cross = _own_index(encoder.num_cross_attentions - 1, encoder.cross_attention_sharing)
        later_blocks = _own_index(encoder.num_blocks - 1, encoder.block_sharing)
        self.cross_attention = layer(encoder.cross_attention, input_channels)
        self.self_attends = block()
        self.later_cross_attentions = nn.ModuleList(
            layer(encoder.cross_attention, input_channels) for _ in range(later_cross)
        )
        self.later_blocks = nn.ModuleList(block() for _ in range(later_blocks))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode."""
        config = self.config
        latents = self.latents.expand(tokens.shape[0], -1, -1)
        cross_attentions = [self.cross_attention, *self.later_cross_attentions]
        blocks = [self.self_attends, *self.later_blocks]
        for index in range(config.num_blocks):
            if index < config.num_cross_attentions:
                latents = cross_attentions[_own_index(index, config.cross_attention_sharing)](latents, tokens, mask)
            for layer in blocks[_own_index(index, config.block_sharing)]:
                if self.gradient_checkpointing and self.training:
                    latents = checkpoint(layer, latents, use_reentrant=False)
                else:
                    latents = layer(latents)
        return latents


def _own_index(index: int, sharing: Sharing) -> int:
    """Which set of weights the repetition `index` of a layer uses."""
    return {"all": 0, "from_second": min(index, 1), "none": index}[sharing]


class PerceiverDecoder(nn.Module):
    """Latents [batch, num_latents, d_latents] and queries [(1 or batch,) queries, query channels] to outputs.

    `queries` [num_queries, query channels] are trainable, or None where the task makes queries of other things. Each
    query is answered independently of the others, so they can be decoded in chunks. `query_mask` [batch, queries] is 0
    where a query gets nothing from the latents.
    """

    def __init__(self, config: PerceiverConfig, decoder: DecoderConfig) -> None:
        super().__init__()
        self.queries = None
        if decoder.num_queries is not None:
            self.queries = nn.Parameter(torch.empty(decoder.num_queries, decoder.query_channels))
            nn.init.trunc_normal_(self.queries, std=config.initializer_range)
        self.cross_attention = AttentionLayer(
            decoder.cross_attention,
            config.semantics,
            q_channels=decoder.query_channels,
            kv_channels=config.encoder.d_latents,
            dropout=config.dropout,
        )
        self.projection = (
            None if decoder.output_channels is None else nn.Linear(decoder.query_channels, decoder.output_channels)
        )

    def forward(self, latents: Tensor, queries: Tensor, query_mask: Tensor | None = None) -> Tensor:
        """Decode to [batch, queries, output channels]."""
        decoded = self.cross_attention(queries.expand(latents.shape[0], -1, -1), latents, query_mask=query_mask)
        return decoded if self.projection is None else self.projection(decoded)


class MeanDecoder(nn.Module):
    """Latents [batch, num_latents, d_latents] to class logits [batch, classes], by their mean."""

    def __init__(self, config: PerceiverConfig, decoder: MeanDecoderConfig) -> None:
        super().__init__()
        d_latents = config.encoder.d_latents
        self.norm = nn.LayerNorm(d_latents, config.semantics.layer_norm_eps) if decoder.norm else None
        self.projection = nn.Linear(d_latents, decoder.output_channels)

    def forward(self, latents: Tensor) -> Tensor:
        """Classify."""
        mean = latents.mean(dim=1)
        return self.projection(mean if self.norm is None else self.norm(mean))


class Classifier(nn.Module):
    """Base of the classifiers: logits are the answer to one trainable query, or come from the mean of the latents.

    A subclass has the `forward` and `encode` of its input, and `signature`, which names inputs, outputs and axes.
    """

    def __init__(self, config: PerceiverConfig, input_adapter: nn.Module, input_channels: int) -> None:
        super().__init__()
        self.config = config
        self.input_adapter = input_adapter
        self.encoder = PerceiverEncoder(config, input_channels)
        self.decoder: PerceiverDecoder | MeanDecoder
        if isinstance(config.decoder, DecoderConfig):
            if config.decoder.num_queries is None:
                raise ValueError(f"task {config.task!r} needs decoder.num_queries")
            self.decoder = PerceiverDecoder(config, config.decoder)
        else:
            self.decoder = MeanDecoder(config, config.decoder)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        raise NotImplementedError

    @property
    def stages(self) -> dict[StageName, Signature]:
        """The decoder takes the latents alone."""
        signature = self.signature
        return split_signature(signature, self.config, data=[spec.name for spec in signature.stage.inputs])

    def decode(self, latents: Tensor) -> dict[str, Tensor]:
        """`latents` to `logits` [batch, classes]."""
        if isinstance(self.decoder, MeanDecoder):
            return {"logits": self.decoder(latents)}
        assert self.decoder.queries is not None
        return {"logits": self.decoder(latents, self.decoder.queries)[:, 0]}
