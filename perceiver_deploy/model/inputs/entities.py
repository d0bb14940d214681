"""Entities: a set of feature vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn


@dataclass(frozen=True)
class EntitiesInput:
    """A set of feature vectors, projected to `channels`. `entities` is the usual number of them.

    With `max_entities` each place has a learned embedding, which bounds how many there may be; without, order has no
    meaning.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    features: int
    channels: int
    entities: int = 32
    max_entities: int | None = None
    kind: Literal["entities"] = "entities"


class EntitiesInputAdapter(nn.Module):
    """Feature vectors [batch, entities, features] to tokens [batch, entities, channels]."""

    def __init__(self, config: EntitiesInput, initializer_range: float) -> None:
        super().__init__()
        self.channels = config.channels
        self.projection = nn.Linear(config.features, config.channels)
        self.places = None
        if config.max_entities is not None:
            self.places = nn.Parameter(torch.empty(config.max_entities, config.channels))
            nn.init.trunc_normal_(self.places, std=initializer_range)

    def forward(self, entities: Tensor) -> Tensor:
        """Project, and add the embedding of the place where there is one."""
        tokens = self.projection(entities)
        return tokens if self.places is None else tokens + self.places.narrow(0, 0, entities.shape[1])
