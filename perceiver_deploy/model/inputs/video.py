"""Video: patches of single frames beside their positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict
from torch import Tensor, nn

from perceiver_deploy.model.positions import FourierEncoding, FourierPositions


@dataclass(frozen=True)
class VideoInput:
    """Frames cut into patches of `patch_size` x `patch_size` pixels of one frame, with positions.

    `clip` is the usual number of frames, height and width in pixels.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    positions: FourierPositions
    patch_size: int = 4
    clip: tuple[int, int, int] = (16, 224, 224)
    kind: Literal["video"] = "video"


class VideoInputAdapter(nn.Module):
    """Frames [batch, frames, 3, height, width] to one token per patch [batch, tokens, channels]."""

    def __init__(self, config: VideoInput) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.positions = FourierEncoding(config.positions)
        self.channels = 3 * config.patch_size**2 + self.positions.channels

    def forward(self, image: Tensor) -> Tensor:
        """Channel order of a patch: rows, columns, RGB."""
        size = self.patch_size
        batch, frames, colours, height, width = image.shape
        patches = image.reshape(batch, frames, colours, height // size, size, width // size, size)
        patches = patches.permute(0, 1, 3, 5, 4, 6, 2).flatten(4).flatten(1, 3)
        return self.positions.beside(patches, (frames, height // size, width // size))
