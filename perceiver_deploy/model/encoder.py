"""The encoder: trainable latents attend to the inputs once, then to each other in weight-shared blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceiver_deploy.model.attention import AttentionLayer
from perceiver_deploy.model.config import PerceiverConfig


class PerceiverEncoder(nn.Module):
    """Tokens [batch, tokens, channels] and mask [batch, tokens] to latents [batch, num_latents, d_latents].

    With `gradient_checkpointing` True, self-attention layers are recomputed in the backward pass.
    """

    def __init__(self, config: PerceiverConfig, input_channels: int) -> None:
        super().__init__()
        encoder = config.encoder
        self.num_blocks = encoder.num_blocks
        self.gradient_checkpointing = False
        self.latents = nn.Parameter(torch.empty(encoder.num_latents, encoder.d_latents))
        nn.init.trunc_normal_(self.latents, std=config.initializer_range)
        self.cross_attention = AttentionLayer(
            encoder.cross_attention,
            config.semantics,
            q_channels=encoder.d_latents,
            kv_channels=input_channels,
            dropout=config.dropout,
        )
        self.self_attends = nn.ModuleList(
            AttentionLayer(
                encoder.self_attention, config.semantics, q_channels=encoder.d_latents, dropout=config.dropout
            )
            for _ in range(encoder.num_self_attends_per_block)
        )

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode."""
        latents = self.cross_attention(self.latents.expand(tokens.shape[0], -1, -1), tokens, mask)
        for _ in range(self.num_blocks):
            for layer in self.self_attends:
                if self.gradient_checkpointing and self.training:
                    latents = checkpoint(layer, latents, use_reentrant=False)
                else:
                    latents = layer(latents)
        return latents
