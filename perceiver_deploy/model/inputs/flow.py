"""Two frames for optical flow: 3x3 patches around every pixel, projected, beside their positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict
from torch import Tensor, nn

from perceiver_deploy.model.positions import FourierEncoding, FourierPositions

FLOW_PATCH_CHANNELS = 27


@dataclass(frozen=True)
class FlowInput:
    """Two frames as 3x3 patches of RGB (27 channels a pixel), projected to `channels`, with positions."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    positions: FourierPositions
    channels: int = 64
    image_size: tuple[int, int] = (368, 496)
    kind: Literal["flow"] = "flow"


class FlowInputAdapter(nn.Module):
    """Patches [batch, 2, 27, height, width] to one token per pixel [batch, height * width, channels]."""

    def __init__(self, config: FlowInput) -> None:
        super().__init__()
        self.projection = nn.Linear(2 * FLOW_PATCH_CHANNELS, config.channels)
        self.positions = FourierEncoding(config.positions)
        self.channels = config.channels + self.positions.channels

    def forward(self, patches: Tensor, points: Tensor | None = None) -> Tensor:
        """Both frames' patches of a pixel, projected, and its position; of the `points` [tokens] where they are given.

        Points are flat indices into [height, width].
        """
        height, width = patches.shape[3:]
        if points is None:
            features = self.projection(patches.permute(0, 3, 4, 1, 2).flatten(3)).flatten(1, 2)
        else:
            features = self.projection(patches.flatten(3).index_select(3, points).permute(0, 3, 1, 2).flatten(2))
        return self.positions.beside(features, (height, width), points)
