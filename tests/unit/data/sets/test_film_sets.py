"""Data sets cut from films: what is held out, and what a clip holds."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.data.sets import film_sets
from perceiver_deploy.data.sets.fidelity import AUDIO_PSNR, IMAGE_PSNR, psnr
from perceiver_deploy.data.sets.films import FRAMES, SAMPLES_PER_FRAME, SIZE

LENGTHS = {"bigbuckbunny": 132, "bikes": 250, "carphone_pristine": 120}
GAP = 2


def numbered_film(name, heights):
    """A film whose pictures have their number as the level of all pixels."""
    number = np.arange(LENGTHS[name], dtype=np.uint8)[:, None, None, None]
    return tuple(np.broadcast_to(number, (len(number), height, 2 * height, 3)) for height in heights)


def numbered_sound(name):
    """Sound whose samples have the number of their picture, over 1000."""
    return np.repeat(np.arange(LENGTHS[name], dtype=np.float32), SAMPLES_PER_FRAME) / 1000


@pytest.fixture(params=["films-autoencoding", "films-audiovisual", "films-video"])
def data(request, monkeypatch):
    """The data sets as they are cut, of films whose pictures and samples say when they are."""
    monkeypatch.setattr(film_sets, "read_film", numbered_film)
    monkeypatch.setattr(film_sets, "read_film_sound", numbered_sound)
    return load_dataset(request.param)


def numbers(split):
    """The numbers of the pictures of each clip [clips, frames], all of whose pixels must have them."""
    levels = np.round(255 * split.inputs["image"]).astype(int)
    assert (levels == levels[:, :, :1, :1, :1]).all()
    return levels[:, :, 0, 0, 0]


def test_pictures_of_test_clips_are_more_than_the_gap_away_from_those_of_training_clips(data):
    for label in range(len(data.labels)):  # of one film each
        train, test = (np.unique(numbers(split)[split.targets == label]) for split in (data.train, data.test))
        assert len(train) >= 10
        assert len(test) >= 8
        assert np.abs(train[:, None] - test).min() > GAP


def test_a_clip_is_of_pictures_in_a_row_with_the_sound_of_the_same_time(data):
    for split in (data.train, data.test):
        shown = numbers(split)
        assert split.inputs["image"].shape == (len(split), FRAMES, 3, SIZE, SIZE)
        assert (np.diff(shown, axis=1) == 1).all()
        if data.preprocessing.sample_rate is None:
            assert "audio" not in split.inputs
        else:
            assert split.inputs["audio"].shape == (len(split), data.preprocessing.samples, 1)
            heard = np.round(1000 * split.inputs["audio"]).astype(int).reshape(len(split), FRAMES, -1)
            assert (heard == shown[..., None]).all()


def test_labels_tell_when_or_where_a_clip_is_from(data):
    for split in (data.train, data.test):
        assert len(set(np.bincount(split.targets))) == 1  # as many clips of each
        if data.name == "films-video":
            bikes = (split.targets >= 1) & (split.targets <= 5)
            ends = np.array([30, 76, 137, 187, 242])
            assert (np.searchsorted(ends, numbers(split)[bikes], side="right") + 1).tolist() == [
                [target] * FRAMES for target in split.targets[bikes]
            ]
        else:
            assert (numbers(split) // 33 == split.targets[:, None]).all()


def test_psnr_is_in_decibels_below_a_peak_of_one():
    original = np.zeros((2, 3, 4), np.float32)
    worse = np.stack([np.full((3, 4), 0.1), np.full((3, 4), 0.01)]).astype(np.float32)
    np.testing.assert_allclose(psnr(worse, original), [20, 40], atol=1e-5)  # float32 of 0.01
    assert psnr(original, original).tolist() == [np.inf, np.inf]


def test_metrics_compare_the_points_that_were_decoded():
    rng = np.random.default_rng(0)
    image = rng.random((2, 3, 3, 4, 5), np.float32)  # [batch, frames, RGB, height, width]
    audio = rng.random((2, 12, 1), np.float32)
    inputs = {"image": image, "audio": audio, "image_points": np.array([7, 59]), "audio_points": np.array([2, 0])}
    outputs = {
        # point 7 of 3 x 4 x 5 is frame 0, row 1, column 2; point 59 the last; patches have 4 samples
        "image_reconstruction": np.stack([image[:, 0, :, 1, 2], image[:, 2, :, 3, 4]], axis=1) + np.float32(0.1),
        "audio_reconstruction": np.concatenate([audio[:, 8:12, 0], audio[:, :4, 0]], axis=1) + np.float32(0.01),
    }
    np.testing.assert_allclose(IMAGE_PSNR.scores(outputs, inputs, np.zeros(2)), 20, atol=1e-4)  # float32 sums
    np.testing.assert_allclose(AUDIO_PSNR.scores(outputs, inputs, np.zeros(2)), 40, atol=1e-3)
