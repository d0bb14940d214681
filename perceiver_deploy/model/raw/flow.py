"""Optical flow between raw frames, in pixels."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional

from perceiver_deploy.bundle.manifest import Signature
from perceiver_deploy.bundle.preprocessing import FlowPreprocessing
from perceiver_deploy.model.raw.wrapping import RawModel, pixels_spec
from perceiver_deploy.model.tasks.catalogue import PerceiverModel


class RawFlowModel(RawModel):
    """`frames_uint8` [batch, 2, height, width, 3] to `flow` in pixels.

    Frames are not cut into tiles: those larger than the preprocessing's `tile_size` are for the caller to cut.
    """

    def __init__(self, model: PerceiverModel, preprocessing: FlowPreprocessing) -> None:
        super().__init__(model)
        self.preprocessing = preprocessing

    @property
    def signature(self) -> Signature:
        """Height and width are those of the model."""
        return self._raw_signature({"patches": pixels_spec("frames_uint8", "batch", 2)}, {})

    def forward(self, frames_uint8: Tensor) -> dict[str, Tensor]:
        """The model's flow, scaled."""
        flow: Tensor = self.wrapped(self._patches(frames_uint8))["flow"]
        return {"flow": flow * self.preprocessing.output_scale}

    def _patches(self, frames: Tensor) -> Tensor:
        """The 3 x 3 patch around each pixel [batch, 2, 27, height, width], as `data.flow.extract_patches`."""
        height, width = frames.shape[2], frames.shape[3]
        scaled = (frames.to(self._dtype) / 255 * 2 - 1).movedim(-1, -3)
        padded = functional.pad(scaled, (1, 1, 1, 1))
        shifts = itertools.product(range(3), range(3))
        return torch.cat([padded.narrow(-2, y, height).narrow(-1, x, width) for y, x in shifts], dim=-3)
