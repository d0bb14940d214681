"""Position features of grids: Fourier features and trainable tables.

Fourier features are float32 by definition, whatever the dtype of the model, as in every published implementation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

_FORBID_EXTRA = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class FourierPositions:
    """sin and cos of positions in [-1, 1] at `num_bands` frequencies from 1 to half of `max_resolution`.

    `order` of the channels: "positions_first" is positions, sin of all dimensions x bands, cos of all (DeepMind);
    "by_dimension" is sin, cos and position of the first dimension, then those of the next (lucidrains).
    """

    __pydantic_config__ = _FORBID_EXTRA
    num_bands: int
    max_resolution: tuple[int | float, ...]
    order: Literal["positions_first", "by_dimension"] = "positions_first"
    kind: Literal["fourier"] = "fourier"

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return len(self.max_resolution) * (2 * self.num_bands + 1)


@dataclass(frozen=True)
class LearnedPositions:
    """A trainable table over a grid of `index_dims`, projected to `projection_channels` unless that is None."""

    __pydantic_config__ = _FORBID_EXTRA
    index_dims: tuple[int, ...]
    channels: int
    projection_channels: int | None = None
    kind: Literal["learned"] = "learned"


Positions = Annotated[FourierPositions | LearnedPositions, Field(discriminator="kind")]


def linear_positions(size: int, device: torch.device) -> Tensor:
    """`size` positions from -1 to 1, float32 [size], bit-equal to `torch.linspace(-1, 1, size)`; [-1] for one.

    Written so that `size` may be symbolic when the model is traced, which `torch.linspace` does not allow.
    """
    index = torch.arange(size, dtype=torch.float64, device=device)
    last = torch.full((), size - 1, dtype=torch.float64, device=device)
    step = (2 / last.clamp(min=1)).to(torch.float32).to(torch.float64)
    rising = -1 + index * step
    falling = 1 - (last - index) * step
    in_first_half = (index < torch.floor((last + 1) / 2)) | (index == 0)
    return torch.where(in_first_half, rising, falling).to(torch.float32)


def _over_grid(rows: Tensor, axis: int, sizes: tuple[int, ...], batch: tuple[int, ...]) -> Tensor:
    """Rows [size, channels] along one axis, repeated over the others: [*batch, product of sizes, channels]."""
    shape = [size if other == axis else 1 for other, size in enumerate(sizes)]
    grid = rows.view(*(1 for _ in batch), *shape, -1).expand(*batch, *sizes, -1)
    return grid.flatten(len(batch), len(batch) + len(sizes) - 1)


def indexed_positions(indices: Tensor, sizes: Sequence[int | Tensor]) -> Tensor:
    """Positions float32 [queries, dimensions] of flat indices [queries] into a grid: -1 + 2 * index / size.

    This is the grid that DeepMind decodes subsampled outputs on; it differs from that of `linear_positions`. Sizes are
    numbers, or int64 scalars.
    """
    indices_by_axis = _unravel(indices, sizes)
    return torch.stack(
        [-1 + (2 * index).to(torch.float32) / size for index, size in zip(indices_by_axis, sizes, strict=True)], dim=-1
    )


def _unravel(indices: Tensor, sizes: Sequence[int | Tensor]) -> list[Tensor]:
    """The index along each axis of flat indices into a grid."""
    unravelled = []
    for size in reversed(sizes):
        above = torch.div(indices, size, rounding_mode="floor")
        unravelled.append(indices - above * size)
        indices = above
    return unravelled[::-1]


class FourierEncoding(nn.Module):
    """Fourier features of positions: sin and cos at frequencies evenly spaced from 1 to half the maximal resolution.

    The order of the channels is the configuration's.
    """

    def __init__(self, config: FourierPositions) -> None:
        super().__init__()
        self.channels = config.channels
        self.order = config.order
        # Python numbers, because a buffer would change its dtype with the model's
        self._frequencies = [
            torch.linspace(1.0, size / 2, config.num_bands, device="cpu").tolist()  # noqa: TID251 - a constant
            for size in config.max_resolution
        ]

    def forward(self, sizes: tuple[int, ...], like: Tensor, points: Tensor | None = None) -> Tensor:
        """Features [points, channels] of a grid of these sizes, on the device and in the dtype of `like`.

        Those of the flat indices `points` where they are given.
        """
        return torch.cat(self._placed(sizes, like, points, ()), -1)

    def beside(self, tokens: Tensor, sizes: tuple[int, ...], points: Tensor | None = None) -> Tensor:
        """Tokens [batch, points, channels] with the features of `forward` as further channels.

        Joined at once: of a grid that is large, each copy of the features takes as long as reading the tokens does.
        """
        return torch.cat([tokens, *self._placed(sizes, tokens, points, tuple(tokens.shape[:1]))], -1)

    def features(self, positions: Tensor) -> Tensor:
        """Features float32 [..., channels] of positions float32 [..., dimensions]."""
        return torch.cat(self._ordered([self._along(axis, at) for axis, at in enumerate(positions.unbind(-1))]), -1)

    def _placed(
        self, sizes: tuple[int, ...], like: Tensor, points: Tensor | None, batch: tuple[int, ...]
    ) -> list[Tensor]:
        """Parts [*batch, points, 1 or bands] of the features, in order."""
        along = [self._along(axis, linear_positions(size, like.device)) for axis, size in enumerate(sizes)]
        if points is None:
            placed = [[_over_grid(part, axis, sizes, batch) for part in parts] for axis, parts in enumerate(along)]
        else:
            placed = [
                [part.index_select(0, at).expand(*batch, -1, -1) for part in parts]
                for at, parts in zip(_unravel(points, sizes), along, strict=True)
            ]
        return [part.to(like.dtype) for part in self._ordered(placed)]

    def _along(self, axis: int, positions: Tensor) -> list[Tensor]:
        """Positions, sines and cosines [..., 1 or bands] of positions float32 [...] along one axis.

        Those of a grid are made from its sides: as many as height + width, not height x width.
        """
        frequencies = torch.tensor(self._frequencies[axis], dtype=torch.float32, device=positions.device)
        angles = math.pi * (positions[..., None] * frequencies)
        return [positions[..., None], torch.sin(angles), torch.cos(angles)]

    def _ordered(self, parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The parts of the channels in the configuration's order."""
        if self.order == "by_dimension":
            return [part for positions, sines, cosines in parts for part in (sines, cosines, positions)]
        return [part for kind in zip(*parts, strict=True) for part in kind]


class LearnedEncoding(nn.Module):
    """A trainable table over a grid; a smaller grid takes its leading part along each dimension.

    Result [points, channels], projected where the configuration says so.
    """

    def __init__(self, config: LearnedPositions, initializer_range: float) -> None:
        super().__init__()
        self.index_dims = config.index_dims
        self.channels = config.projection_channels or config.channels
        self.table = nn.Parameter(torch.empty(math.prod(config.index_dims), config.channels))
        nn.init.trunc_normal_(self.table, std=initializer_range)
        self.projection = (
            None if config.projection_channels is None else nn.Linear(config.channels, config.projection_channels)
        )

    def forward(self, sizes: tuple[int, ...], like: Tensor) -> Tensor:
        """Rows of the table for a grid of these sizes; `like` is not needed and taken for symmetry."""
        table = self.table.view(*self.index_dims, -1)
        for dimension, size in enumerate(sizes):
            table = table.narrow(dimension, 0, size)
        table = table.flatten(0, len(sizes) - 1)
        return table if self.projection is None else self.projection(table)

    def beside(self, tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Tokens [batch, points, channels] with the rows of `forward` as further channels."""
        return torch.cat([tokens, self(sizes, tokens).expand(tokens.shape[0], -1, -1)], -1)


def build_positions(
    config: FourierPositions | LearnedPositions, initializer_range: float
) -> FourierEncoding | LearnedEncoding:
    """The encoding that the configuration describes."""
    if isinstance(config, FourierPositions):
        return FourierEncoding(config)
    return LearnedEncoding(config, initializer_range)
