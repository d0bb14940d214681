"""Pillow's bicubic resize inside a graph, to the same bits, with sizes that are known at run time only.

Each direction is a product with a matrix of weights, and its result is rounded to whole levels, as Pillow does. Weights
are Pillow's too: whole numbers of 22 bits behind the point. Both halves of such a number, and all that they add up to,
are whole numbers that float32 holds exactly (a row of weights has fewer than 64 entries unless a picture is made more
than 16 times smaller), so every order of summation gives one result. Source: Pillow, src/libImaging/Resample.c.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

LARGEST_ERROR = 2.0**-11
"""By how much a level before rounding may be off, in levels, in a runtime that computes weights in float32."""
_WEIGHT_BITS = 22
_LOW_BITS = 11
_SHARPNESS = -0.5


@dataclass(frozen=True)
class Window:
    """What is taken of one direction of a picture: float64 scalars, in pixels.

    `begin`, `length`: the part that becomes the result. `low`, `high`: the pixels that may add to it.
    """

    begin: Tensor
    length: Tensor
    low: Tensor
    high: Tensor


class BicubicResize(nn.Module):
    """Pictures uint8 [..., height, width, 3] to whole levels 0 to 255, float32 [..., 3, *size].

    `crop_fraction`: take the square in the middle whose side is this share of the short side. `cover`: take what has
    the sides' ratio of `size`, as large as it can be, in the middle. Neither: take all. Levels are rounded with
    `rounding` added to them, which is 0 but where it is asked what rounding does.
    """

    def __init__(self, size: tuple[int, int], *, crop_fraction: float | None = None, cover: bool = False) -> None:
        super().__init__()
        self.size = size
        self.crop_fraction = crop_fraction
        self.cover = cover
        self.rounding = 0.0

    def forward(self, pixels: Tensor) -> Tensor:
        """Columns first, then rows; the other way round where Pillow 13 turns round, which only rounding shows."""
        levels = pixels.to(torch.float32).movedim(-1, -3)
        windows = self._windows(levels)
        rows, columns = (
            resize_weights(window, size, count)
            for window, size, count in zip(windows, self.size, levels.shape[-2:], strict=True)
        )
        columns_first = self._product(self._product(levels, columns).mT, rows).mT
        if self.crop_fraction is not None and self.size[0] == self.size[1]:
            return columns_first  # a square of a square never loses more rows than columns
        rows_first = self._product(self._product(levels.mT, rows).mT, columns)
        lost_rows, lost_columns = (
            window.high - window.low - size for window, size in zip(windows, self.size, strict=True)
        )
        turned = (lost_rows > 0) & (lost_rows > 2 * lost_columns)
        return torch.where(turned, rows_first, columns_first)

    def _product(self, levels: Tensor, weights: Tensor) -> Tensor:
        """Levels [..., count] weighted to levels [..., size], rounded (halves up) and clipped to 0 and 255."""
        high = torch.floor(weights / 2.0**_LOW_BITS + 0.5)
        low = weights - high * 2.0**_LOW_BITS
        carry = torch.floor((levels @ low.to(torch.float32)) / 2.0**_LOW_BITS)
        total = levels @ high.to(torch.float32) + carry
        unit = 2.0 ** (_WEIGHT_BITS - _LOW_BITS)
        return torch.floor((total + unit * (0.5 + self.rounding)) / unit).clamp(0.0, 255.0)

    def _windows(self, levels: Tensor) -> tuple[Window, Window]:
        """Of height and width."""
        height, width = (torch.full((), size, dtype=torch.float64, device=levels.device) for size in levels.shape[-2:])
        if self.crop_fraction is not None:
            side = torch.floor(torch.minimum(height, width) * self.crop_fraction)
            return _centre_window(height, side), _centre_window(width, side)
        if not self.cover:
            return _whole_window(height), _whole_window(width)
        ratio = self.size[1] / self.size[0]
        too_wide, too_high = width / height > ratio, width / height < ratio
        return (
            _covering_window(height, torch.where(too_high, width / ratio, height)),
            _covering_window(width, torch.where(too_wide, height * ratio, width)),
        )


def _whole_window(size: Tensor) -> Window:
    return Window(torch.zeros_like(size), size, torch.zeros_like(size), size)


def _centre_window(size: Tensor, side: Tensor) -> Window:
    """A crop: nothing beyond it counts."""
    begin = torch.floor((size - side) / 2)
    return Window(begin, side, begin, begin + side)


def _covering_window(size: Tensor, length: Tensor) -> Window:
    """A box: pixels beyond it count at its edges. Pillow takes its sides as float32."""
    begin = (size - length) / 2
    first, last = (value.to(torch.float32) for value in (begin, begin + length))
    return Window(first.to(torch.float64), (last - first).to(torch.float64), torch.zeros_like(size), size)


def resize_weights(window: Window, size: int, count: int) -> Tensor:
    """Weights float64 [count, size], whole numbers of 2**-22, of `count` pixels for `size` results."""
    device = window.begin.device
    result = torch.arange(size, dtype=torch.float64, device=device)
    pixel = torch.arange(count, dtype=torch.float64, device=device)[:, None]
    # One rounding, by the division, so that runtimes that know no float64 (OpenVINO) come as near as they can
    distance = (pixel - window.begin + 0.5) * size - (result + 0.5) * window.length
    weights = _bicubic(distance / window.length.clamp(min=size))
    weights = torch.where((pixel >= window.low) & (pixel < window.high), weights, 0.0)
    weights = weights / weights.sum(0, keepdim=True) * 2.0**_WEIGHT_BITS
    return torch.sign(weights) * torch.floor(weights.abs() + 0.5)


def _bicubic(distance: Tensor) -> Tensor:
    x = distance.abs()
    near = ((_SHARPNESS + 2) * x - (_SHARPNESS + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _SHARPNESS
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
