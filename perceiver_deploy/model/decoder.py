"""The decoder: output queries attend to the latents once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.model.attention import AttentionLayer
from perceiver_deploy.model.config import PerceiverConfig


class PerceiverDecoder(nn.Module):
    """Latents [batch, num_latents, d_latents] to [batch, queries, output channels], with trainable queries."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        decoder = config.decoder
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

    def forward(self, latents: Tensor, num_queries: int) -> Tensor:
        """Decode the first `num_queries` queries; each is independent of the others."""
        queries = self.queries.narrow(0, 0, num_queries).expand(latents.shape[0], -1, -1)
        decoded = self.cross_attention(queries, latents)
        return decoded if self.projection is None else self.projection(decoded)
