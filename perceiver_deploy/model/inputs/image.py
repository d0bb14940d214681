"""Images: pixels, as they are or through a stem, beside their positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from perceiver_deploy.model.positions import Positions, build_positions


@dataclass(frozen=True)
class ImageInput:
    """Pixels, as they are or through a stem, concatenated with positions.

    `stem`: "pixels" (none), "conv1x1" (one 1x1 convolution) or "conv" (`ConvStem`: a quarter of height and width).
    `stem_channels` is None for "pixels". `stem_padding` is that of `ConvStem`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    stem: Literal["pixels", "conv1x1", "conv"]
    positions: Positions
    stem_channels: int | None = None
    image_size: tuple[int, int] = (224, 224)
    image_channels: int = 3
    stem_padding: Literal["fixed", "same"] = "fixed"
    kind: Literal["image"] = "image"

    def __post_init__(self) -> None:
        if (self.stem == "pixels") != (self.stem_channels is None):
            raise ValueError(f"stem {self.stem!r} with stem_channels {self.stem_channels}: only 'pixels' has none")
        if self.stem != "conv" and self.stem_padding != "fixed":
            raise ValueError(f"stem {self.stem!r} with stem_padding {self.stem_padding!r}: only 'conv' pads")


class ImageInputAdapter(nn.Module):
    """Pixels and positions, concatenated: `pixel_values` [batch, 3, height, width] to [batch, tokens, channels]."""

    def __init__(self, config: ImageInput, initializer_range: float) -> None:
        super().__init__()
        self.stem = _build_stem(config)
        self.positions = build_positions(config.positions, initializer_range)
        self.channels = (config.stem_channels or config.image_channels) + self.positions.channels

    def forward(self, pixel_values: Tensor) -> Tensor:
        """One token per pixel of the stem's output, row by row."""
        features = pixel_values if self.stem is None else self.stem(pixel_values)
        return self.positions.beside(features.flatten(2).transpose(1, 2), (features.shape[2], features.shape[3]))


def _build_stem(config: ImageInput) -> nn.Module | None:
    if config.stem_channels is None:
        return None
    if config.stem == "conv1x1":
        return nn.Conv2d(config.image_channels, config.stem_channels, kernel_size=1)
    return ConvStem(config.image_channels, config.stem_channels, config.stem_padding)


class ConvStem(nn.Module):
    """7x7 convolution of stride 2, batch norm, ReLU and 3x3 max pool of stride 2.

    Padding "fixed", as in Hugging Face: 3 on each side before the convolution, none before the pool, so that 224 x 224
    pixels become 55 x 55. Padding "same", as in DeepMind's code: what TensorFlow calls SAME before both, so that the
    size is halved and rounded up twice, and 224 x 224 pixels become 56 x 56.
    """

    min_size = 5

    def __init__(self, in_channels: int, out_channels: int, padding: Literal["fixed", "same"] = "fixed") -> None:
        super().__init__()
        self.pads_same = padding == "same"
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size=7, stride=2, padding=0 if self.pads_same else 3, bias=False
        )
        self.batch_norm = nn.BatchNorm2d(out_channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """[batch, in, height, width] to [batch, out, about height / 4, about width / 4]."""
        if self.pads_same:
            pixels = _pad_same(pixels, kernel_size=7)
        features = functional.relu(self.batch_norm(self.conv(pixels)))
        if self.pads_same:
            features = _pad_same(features, kernel_size=3)  # after a ReLU, zeros are as good as TensorFlow's -inf
        return functional.max_pool2d(features, kernel_size=3, stride=2)


def _pad_same(images: Tensor, kernel_size: int) -> Tensor:
    """Zeros around images [..., height, width], as many as SAME has for this odd kernel and a stride of 2.

    An odd size gets as many at both ends, an even one gets one less at its beginning.
    """
    after = kernel_size // 2
    height, width = images.shape[-2:]
    return functional.pad(images, (after - 1 + width % 2, after, after - 1 + height % 2, after))
