"""Text: embeddings of tokens plus those of their positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict
from torch import Tensor, nn


@dataclass(frozen=True)
class TextInput:
    """Token embeddings plus learned positions."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    vocab_size: int
    max_length: int
    channels: int
    kind: Literal["text"] = "text"


class TextInputAdapter(nn.Module):
    """Token embeddings plus learned positions: `input_ids` [batch, length] to [batch, length, channels]."""

    def __init__(self, config: TextInput, initializer_range: float) -> None:
        super().__init__()
        self.channels = config.channels
        self.embeddings = nn.Embedding(config.vocab_size, config.channels)
        self.position_embeddings = nn.Embedding(config.max_length, config.channels)
        for embedding in (self.embeddings, self.position_embeddings):
            nn.init.trunc_normal_(embedding.weight, std=initializer_range)

    def forward(self, input_ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Embed tokens at their `positions` [length], by default from 0."""
        if positions is not None:
            return self.embeddings(input_ids) + self.position_embeddings(positions)
        return self.embeddings(input_ids) + self.position_embeddings.weight.narrow(0, 0, input_ids.shape[1])
