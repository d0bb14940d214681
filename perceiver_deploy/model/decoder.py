"""Decoders: output queries attend to the latents once, or the latents are averaged."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.model.attention import AttentionLayer
from perceiver_deploy.model.config import DecoderConfig, MeanDecoderConfig, PerceiverConfig


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
