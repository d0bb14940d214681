"""Points in space, in any order and number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from perceiver_deploy.model.positions import FourierEncoding, FourierPositions


@dataclass(frozen=True)
class PointsInput:
    """Points in space, as Fourier features of their coordinates. `points` is the usual number of them."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    positions: FourierPositions
    points: int = 2048
    kind: Literal["points"] = "points"


class PointsInputAdapter(nn.Module):
    """Coordinates [batch, points, 3] to their Fourier features [batch, points, channels]."""

    def __init__(self, config: PointsInput) -> None:
        super().__init__()
        self.positions = FourierEncoding(config.positions)
        self.channels = self.positions.channels

    def forward(self, points: Tensor) -> Tensor:
        """Features are float32 whatever the dtype of the model, as for grids."""
        return self.positions.features(points.to(torch.float32)).to(points.dtype)
