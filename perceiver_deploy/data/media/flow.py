"""Optical flow: two frames to patches, tiles of large frames, the end-point error. A flow goes from first to second."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.preprocessing import FlowPreprocessing
from perceiver_deploy.data.media.images import read_image
from perceiver_deploy.data.metrics import Metric, Run
from perceiver_deploy.errors import InputError
from perceiver_deploy.progress import track

Tile = tuple[slice, slice]
"""Rows and columns."""


def read_frames(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """Frames [2, height, width, 3] of two image files of one size.

    Raises:
        InputError: not two files, a file that is not an image, or two sizes.
        MissingError: Pillow is not installed.
    """
    if len(paths) != 2:
        names = ", ".join(str(path) for path in paths)
        raise InputError(f"Optical flow takes two frames, the first and the second, not {len(paths)} ({names}).")
    first, second = (np.asarray(read_image(path)) for path in paths)
    if first.shape != second.shape:
        raise InputError(
            f"{paths[0]} has {first.shape[1]} x {first.shape[0]} pixels and {paths[1]} has {second.shape[1]} x "
            f"{second.shape[0]}. Give two frames of one size."
        )
    return np.stack([first, second])


def extract_patches(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The 3 x 3 patch around each pixel: uint8 [..., height, width, 3] to float32 [..., 27, height, width].

    Values are x / 255 * 2 - 1, beyond the edge 0; channels are in the order row, column, colour.
    """
    height, width = frames.shape[-3:-1]
    scaled = np.moveaxis(frames.astype(np.float32) / 255 * 2 - 1, -1, -3)
    padded = np.pad(scaled, [(0, 0)] * (frames.ndim - 2) + [(1, 1), (1, 1)])
    shifts = itertools.product(range(3), range(3))
    return np.concatenate([padded[..., y : y + height, x : x + width] for y, x in shifts], axis=-3)


def cut_tiles(size: tuple[int, int], preprocessing: FlowPreprocessing) -> list[Tile]:
    """Evenly spaced tiles that cover a frame of `size` [height, width]; no tile is larger than the frame."""
    spans = []
    for length, tile in zip(size, preprocessing.tile_size, strict=True):
        tile = min(tile, length)
        count = 1 if tile == length else -(-(length - tile) // (tile - preprocessing.min_overlap)) + 1
        starts = np.linspace(0, length - tile, count).astype(int)
        spans.append([slice(start, start + tile) for start in starts.tolist()])
    rows, columns = spans
    return list(itertools.product(rows, columns))


def tile_weights(height: int, width: int) -> NDArray[np.float64]:
    """Weight of each pixel of a tile [height, width]: how many pixels it is from the nearest edge, from 1."""
    rows, columns = (np.minimum(np.arange(size) + 1, size - np.arange(size)) for size in (height, width))
    return np.minimum(rows[:, None], columns[None, :]).astype(np.float64)


def estimate_flow(
    run: Run, frames: NDArray[np.uint8], preprocessing: FlowPreprocessing, *, raw: bool = False
) -> NDArray[np.float32]:
    """Flow in pixels, x then y, [height, width, 2], of two frames uint8 [2, height, width, 3] of any size.

    Frames larger than a tile are run tile by tile, with `run` such as a session's; where tiles overlap, the flow is
    their mean, weighted by `tile_weights`. `raw`: `run` takes frames as they are and gives pixels.

    Raises:
        InputError: not two RGB frames.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or (frames.shape[0], frames.shape[3]) != (2, 3):
        raise InputError(f"The frames are {frames.dtype} {list(frames.shape)}; expected uint8 [2, height, width, 3].")
    height, width = frames.shape[1:3]
    total, weight = np.zeros((height, width, 2)), np.zeros((height, width, 1))
    tiles = cut_tiles((height, width), preprocessing)
    for tile in track(tiles, "Estimating flow", len(tiles)):
        cut = frames[:, *tile]
        inputs: Arrays = {"frames_uint8": cut[None]} if raw else {"patches": extract_patches(cut)[None]}
        flow = run(inputs)["flow"][0].astype(np.float64)
        weights = tile_weights(*flow.shape[:2])[..., None]
        total[tile] += weights * flow
        weight[tile] += weights
    return (total / weight * (1.0 if raw else preprocessing.output_scale)).astype(np.float32)


def end_point_error(preprocessing: FlowPreprocessing) -> Metric:
    """Mean distance in pixels between `flow`, scaled, and the target flow [examples, height, width, 2]."""

    def scores(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
        difference = outputs["flow"].astype(np.float64) * preprocessing.output_scale - targets
        return np.asarray(np.linalg.norm(difference, axis=-1).mean((1, 2)))

    return Metric("end-point error", "px", False, scores)
