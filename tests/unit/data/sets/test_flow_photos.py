"""Warped pairs: their flow is true, on a photograph made for it; the split shares no photograph."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.data.sets import flow_photos
from perceiver_deploy.data.sets.flow_photos import MAX_MOTION, SIZE, draw_fields, draw_pairs, sample_bilinear


@pytest.fixture
def ramp():
    """A photograph whose red is its x and whose green is its y: sampled between pixels without error."""
    rows, columns = np.mgrid[:60, :70].astype(np.float32)
    return np.stack([2 * columns, 2 * rows, np.zeros_like(rows)], axis=-1)


def test_what_is_at_x_in_the_first_frame_is_at_x_plus_flow_in_the_second(ramp):
    frames, flow = draw_pairs((ramp,), 4, np.random.default_rng(0))
    first, second = frames[:, 0].astype(float) / 2, frames[:, 1].astype(float) / 2
    # on a ramp the value at x + flow is that at x, plus flow; frames are rounded to whole levels, a quarter pixel each
    np.testing.assert_allclose(first[..., :2], second[..., :2] + flow, atol=0.5)


def test_a_pure_translation_of_whole_pixels_shifts_the_frame(monkeypatch):
    photo = np.random.default_rng(1).uniform(0, 255, (60, 70, 3)).astype(np.float32)
    flow = np.broadcast_to(np.array([2, -1], np.float32), (1, *SIZE, 2))
    monkeypatch.setattr(flow_photos, "draw_fields", lambda count, rng: flow)
    frames, _ = draw_pairs((photo,), 1, np.random.default_rng(0))
    first, second = frames[0].astype(int)
    # one grey level: two roundings of the same sum
    np.testing.assert_allclose(first[1:, :-2], second[:-1, 2:], atol=1)


def test_fields_are_smooth_and_no_longer_than_stated():
    fields = draw_fields(200, np.random.default_rng(0))
    longest = np.linalg.norm(fields, axis=-1).max((1, 2))
    assert 0.5 <= longest.min() < 0.6
    assert MAX_MOTION - 0.1 < longest.max() <= MAX_MOTION * (1 + 1e-6)
    # a cosine of two half waves over 32 pixels turns by at most 2 pi / 32 a pixel
    for axis in (1, 2):
        assert np.abs(np.diff(fields, axis=axis)).max() < MAX_MOTION * 2 * np.pi / 32


def test_bilinear_sampling_is_exact_on_pixels_and_between(ramp):
    place = np.array([[3.0, 4.0], [3.25, 4.5]])
    np.testing.assert_allclose(sample_bilinear(ramp, place), [[6, 8, 0], [6.5, 9, 0]])


def test_no_photograph_is_in_both_splits():
    assert not set(flow_photos.TRAIN_PHOTOS) & set(flow_photos.TEST_PHOTOS)
