from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from perceiver_deploy.data.media.images import _centre_crop
from perceiver_deploy.model.raw.resize import LARGEST_ERROR, BicubicResize

BICUBIC = Image.Resampling.BICUBIC
SIZES = [
    ((375, 500), (224, 224)),  # a photograph
    ((500, 375), (224, 224)),
    ((8, 8), (8, 8)),  # left as it is
    ((5, 7), (16, 24)),  # made larger
    ((1, 1), (8, 8)),
    ((1, 9), (8, 8)),
    ((33, 17), (8, 16)),  # Pillow 13 takes rows first
    ((900, 300), (32, 32)),
    ((700, 40), (32, 32)),
]


def picture(height: int, width: int) -> np.ndarray:
    """Half of it black and white noise, which bicubic weights drive beyond 0 and 255, half of it any levels."""
    rng = np.random.default_rng(height * width)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    extremes = 255 * rng.integers(0, 2, (height, width, 3), dtype=np.uint8)
    return np.where(np.arange(width)[:, None] < width // 2, noise, extremes)


def resized(resize: BicubicResize, pixels: np.ndarray) -> np.ndarray:
    return np.moveaxis(resize(torch.from_numpy(pixels)).numpy(), -3, -1)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_resize_gives_pillows_levels_to_the_last(before: tuple[int, int], after: tuple[int, int]) -> None:
    pixels = picture(*before)
    expected = np.asarray(Image.fromarray(pixels).resize(after[::-1], BICUBIC))
    np.testing.assert_array_equal(resized(BicubicResize(after), pixels), expected)


@pytest.mark.parametrize(("before", "after"), [sizes for sizes in SIZES if min(sizes[0]) > 1])
def test_crop_and_resize_give_pillows_levels_to_the_last(before: tuple[int, int], after: tuple[int, int]) -> None:
    pixels = picture(*before)
    image = Image.fromarray(pixels)
    expected = np.asarray(_centre_crop(image, int(0.875 * min(image.size))).resize(after[::-1], BICUBIC))
    np.testing.assert_array_equal(resized(BicubicResize(after, crop_fraction=0.875), pixels), expected)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_cover_gives_the_levels_of_pillows_fit_to_the_last(before: tuple[int, int], after: tuple[int, int]) -> None:
    pixels = picture(*before)
    expected = np.asarray(ImageOps.fit(Image.fromarray(pixels), after[::-1], BICUBIC))
    np.testing.assert_array_equal(resized(BicubicResize(after, cover=True), pixels), expected)


def test_pictures_of_a_batch_of_clips_are_resized_each_for_itself() -> None:
    clips = np.stack([[picture(9, 7), picture(9, 7)[::-1]], [picture(9, 7)[:, ::-1], 255 - picture(9, 7)]])
    resize = BicubicResize((4, 6))
    together = resized(resize, clips)
    for clip, row in zip(clips, together, strict=True):
        for pixels, result in zip(clip, row, strict=True):
            np.testing.assert_array_equal(resized(resize, pixels), result)


def test_rounding_moves_only_levels_near_the_middle_of_two_and_by_one() -> None:
    pixels = picture(375, 500)
    resize = BicubicResize((224, 224))
    exact = resized(resize, pixels)
    resize.rounding = LARGEST_ERROR
    moved = resized(resize, pixels) - exact
    assert set(np.unique(moved)) <= {-1, 0, 1}  # -1: the first rounding's, by a weight below 0
    # a share LARGEST_ERROR of the levels by the second rounding, and a few that the first one moved
    assert 0.5 * LARGEST_ERROR < np.abs(moved).mean() < 2 * LARGEST_ERROR
