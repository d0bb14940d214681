"""Input adapters of sets: points in space and entities, in any order and number."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.model.inputs.config import EntitiesInput, PointsInput
from perceiver_deploy.model.positions import FourierEncoding


class PointsInputAdapter(nn.Module):
    """Coordinates [batch, points, 3] to their Fourier features [batch, points, channels]."""

    def __init__(self, config: PointsInput) -> None:
        super().__init__()
        self.positions = FourierEncoding(config.positions)
        self.channels = self.positions.channels

    def forward(self, points: Tensor) -> Tensor:
        """Features are float32 whatever the dtype of the model, as for grids."""
        return self.positions.features(points.to(torch.float32)).to(points.dtype)


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
