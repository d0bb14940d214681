"""Image classification of raw pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from perceiver_deploy.bundle.manifest import Axis, Signature
from perceiver_deploy.bundle.preprocessing import ImagePreprocessing
from perceiver_deploy.model.raw.resize import BicubicResize
from perceiver_deploy.model.raw.wrapping import RawModel, pixels_spec
from perceiver_deploy.model.tasks.catalogue import PerceiverModel


class RawImageModel(RawModel):
    """`image_uint8` [batch, height, width, 3] of any size; cropped, resized, normalised as the preprocessing says."""

    def __init__(self, model: PerceiverModel, preprocessing: ImagePreprocessing) -> None:
        super().__init__(model)
        self.preprocessing = preprocessing
        self.resize = None
        if preprocessing.size is not None:
            self.resize = BicubicResize(preprocessing.size, crop_fraction=preprocessing.crop_fraction)
        self.normalize = Normalize(preprocessing)

    @property
    def signature(self) -> Signature:
        """Where pictures are resized, height and width are bounded only by what a crop leaves of them."""
        axes = {}
        if self.preprocessing.size is not None:
            share = self.preprocessing.crop_fraction or 1.0
            axes = {
                name: Axis(min=math.ceil(1 / share), opt=round(size / share))
                for name, size in zip(("height", "width"), self.preprocessing.size, strict=True)
            }
        return self._raw_signature({"pixel_values": pixels_spec("image_uint8", "batch")}, axes)

    def forward(self, image_uint8: Tensor) -> dict[str, Tensor]:
        """The outputs of the model."""
        if self.resize is None:
            levels = image_uint8.to(self._dtype).movedim(-1, -3)
        else:
            levels = self.resize(image_uint8).to(self._dtype)
        outputs: dict[str, Tensor] = self.wrapped(self.normalize(levels))
        return outputs


class Normalize(nn.Module):
    """Levels [..., 3, height, width] to (x / 255 - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: ImagePreprocessing) -> None:
        super().__init__()
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, levels: Tensor) -> Tensor:
        """In the order of `data.images.normalize`."""
        return (levels / 255 - self.mean) / self.std
