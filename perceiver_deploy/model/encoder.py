"""The encoder: trainable latents attend to the inputs, once or several times, and to each other in blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceiver_deploy.model.attention import AttentionLayer
from perceiver_deploy.model.config import PerceiverConfig, Sharing


class PerceiverEncoder(nn.Module):
    """Tokens [batch, tokens, channels] and mask [batch, tokens] to latents [batch, num_latents, d_latents].

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

        def cross_attention() -> AttentionLayer:
            return AttentionLayer(
                encoder.cross_attention,
                config.semantics,
                q_channels=encoder.d_latents,
                kv_channels=input_channels,
                dropout=config.dropout,
            )

        def block() -> nn.ModuleList:
            return nn.ModuleList(
                AttentionLayer(
                    encoder.self_attention, config.semantics, q_channels=encoder.d_latents, dropout=config.dropout
                )
                for _ in range(encoder.num_self_attends_per_block)
            )

        later_cross = _own_index(encoder.num_cross_attentions - 1, encoder.cross_attention_sharing)
        later_blocks = _own_index(encoder.num_blocks - 1, encoder.block_sharing)
        self.cross_attention = cross_attention()
        self.self_attends = block()
        self.later_cross_attentions = nn.ModuleList(cross_attention() for _ in range(later_cross))
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
