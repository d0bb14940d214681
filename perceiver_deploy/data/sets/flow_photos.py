"""Photographs in scikit-image's wheel, cut into crops and warped by known smooth fields: pairs with exact flow.

With a photograph P, an offset o and a flow f, frame 1 is P(x + o + f(x)) and frame 2 is P(x + o): what is at x in
frame 1 is at x + f(x) in frame 2. Both are sampled between pixels, so neither is the sharper one.
"""

from __future__ import annotations

import functools
import io
import math

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.bundle.preprocessing import FlowPreprocessing
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.fetch.archives import read_members
from perceiver_deploy.data.fetch.fetching import cached
from perceiver_deploy.data.fetch.sources import SOURCES
from perceiver_deploy.data.media.flow import end_point_error, extract_patches
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import requires

SIZE = (32, 32)
MAX_MOTION = 2.0  # pixels, the longest vector of a field
PREPROCESSING = FlowPreprocessing(tile_size=SIZE, min_overlap=12, output_scale=100.0)
SOURCE = SOURCES["scikit-image"]
TRAIN_PHOTOS = ("astronaut.png", "coffee.png", "brick.png", "grass.png", "gravel.png", "coins.png", "ihc.png",
                "retina.jpg", "hubble_deep_field.jpg")  # fmt: skip
TEST_PHOTOS = ("camera.png", "chelsea.png", "rocket.jpg")
LICENSE = "CC0-1.0 AND public domain"
DESCRIPTION = "photographs of scikit-image 0.26.0, warped by smooth fields"
PAIRS = 256
_MIN_MOTION = 0.5
_MIN_CONTRAST = 6.0  # standard deviation of the grey levels: there is nothing to follow in an empty sky
_WAVES = 3

Photo = NDArray[np.float32]
"""Grey levels from 0 to 255, [height, width, 3]."""


def load_flow_photos() -> DataSet:
    """The data set: fixed pairs of crops, those to test on from photographs of which none is trained on.

    Raises:
        MissingError: scikit-image's wheel is not fetched, or Pillow is not installed.
    """
    return DataSet(
        name="flow",
        task="optical_flow",
        source=DESCRIPTION,
        license=LICENSE,
        labels=None,
        preprocessing=PREPROCESSING,
        train=_fixed_pairs(TRAIN_PHOTOS, seed=0),
        test=_fixed_pairs(TEST_PHOTOS, seed=1),
        metrics=(end_point_error(PREPROCESSING),),
    )


def _fixed_pairs(names: tuple[str, ...], seed: int) -> Split:
    frames, flow = draw_pairs(read_photos(names), PAIRS, np.random.default_rng(seed))
    return Split({"patches": extract_patches(frames)}, flow)


@functools.cache
def read_photos(names: tuple[str, ...]) -> tuple[Photo, ...]:
    """Photographs of the wheel by file name, each as it is and at half its size.

    Raises:
        MissingError: the wheel is not in the cache, or Pillow is not installed.
    """
    with requires("media", "Reading photographs"):
        from PIL import Image
    files = {path.rpartition("/")[2]: content for path, content in read_members(cached(SOURCE), SOURCE.content)}
    photos = []
    for name in names:
        image = Image.open(io.BytesIO(files[name])).convert("RGB")
        photos += [np.asarray(image, np.float32), np.asarray(image.reduce(2), np.float32)]
    return tuple(photos)


def draw_pairs(
    photos: tuple[Photo, ...], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Frames [count, 2, *SIZE, 3] and the flow [count, *SIZE, 2] from the first to the second, x then y, in pixels."""
    flow = draw_fields(count, rng)
    frames = np.empty((count, 2, *SIZE, 3), np.uint8)
    for index in range(count):
        frames[index] = _draw_frames(photos, flow[index], rng)
    return frames, flow


def draw_fields(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth fields [count, *SIZE, 2]: sums of low cosine waves, the longer the wave the stronger.

    The longest vector of a field has a length drawn evenly from half a pixel to `MAX_MOTION`.
    """
    order = np.arange(_WAVES)
    rows, columns = (np.cos(np.pi * order[:, None] * (np.arange(size) + 0.5) / size) for size in SIZE)
    strength = 1 / (1 + order[:, None] + order[None, :]) ** 2
    waves = rng.standard_normal((count, 2, _WAVES, _WAVES)) * strength
    fields = np.einsum("nckl,kh,lw->nhwc", waves, rows, columns)
    longest = np.linalg.norm(fields, axis=-1).max((1, 2))
    wanted = rng.uniform(_MIN_MOTION, MAX_MOTION, count)
    return np.asarray(fields * (wanted / longest)[:, None, None, None], np.float32)


def _draw_frames(photos: tuple[Photo, ...], flow: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width, _ = flow.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    margin = math.ceil(MAX_MOTION) + 1
    while True:
        photo = photos[rng.integers(len(photos))]
        highest = np.array([photo.shape[1] - width, photo.shape[0] - height]) - margin
        place = grid + rng.uniform(margin, highest)
        second = sample_bilinear(photo, place)
        if second.mean(-1).std() >= _MIN_CONTRAST:
            return np.rint([sample_bilinear(photo, place + flow), second]).astype(np.uint8)


def sample_bilinear(photo: Photo, place: NDArray[np.floating]) -> NDArray[np.float32]:
    """Values [..., 3] of a photograph at places [..., 2] (x, y) within it, between its pixels."""
    corner = np.floor(place).astype(np.int64)
    right, down = np.moveaxis((place - corner).astype(np.float32)[..., None], -2, 0)
    columns, rows = np.moveaxis(corner, -1, 0)
    above = photo[rows, columns] * (1 - right) + photo[rows, columns + 1] * right
    below = photo[rows + 1, columns] * (1 - right) + photo[rows + 1, columns + 1] * right
    return np.asarray(above * (1 - down) + below * down, np.float32)
