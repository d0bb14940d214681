"""Real files to what a model takes: one example, as the bundle's preprocessing states."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import Axis
from perceiver_deploy.bundle.preprocessing import (
    AudioPreprocessing,
    EntitiesPreprocessing,
    FlowPreprocessing,
    ImagePreprocessing,
    PointsPreprocessing,
    Preprocessing,
    TextPreprocessing,
    VideoPreprocessing,
)
from perceiver_deploy.data.media.audio import preprocess_sound, read_pcm, read_sound
from perceiver_deploy.data.media.entities import read_row, standardize_row
from perceiver_deploy.data.media.images import preprocess_image, read_image
from perceiver_deploy.data.media.points import read_points
from perceiver_deploy.data.media.text import read_tokens, read_utf8
from perceiver_deploy.data.media.video import read_raw_video, read_video
from perceiver_deploy.errors import InputError

ARRAYS_SUFFIX = ".npz"
RAW_FEATURES = "features"


def read_example(
    path: Path, preprocessing: Preprocessing | None, axes: Mapping[str, Axis], *, raw: bool = False
) -> Arrays:
    """Inputs by name, with a batch of one, from a file of the kind that the preprocessing is for, or from a .npz file.

    A .npz file holds the inputs themselves: one array an input, batch included. For entities it may hold `features`
    instead, one row of them as they were measured. `raw`: the graph does the preprocessing, the file is read only.

    Raises:
        InputError: the file cannot be read as that kind, or does not fit the model.
        MissingError: the package that reads it is not installed.
    """
    if path.suffix == ARRAYS_SUFFIX:
        arrays = read_arrays(path)
        if isinstance(preprocessing, EntitiesPreprocessing) and RAW_FEATURES in arrays:
            return standardize_row(arrays[RAW_FEATURES], preprocessing, str(path))
        return arrays
    if preprocessing is None:
        raise InputError(
            f"{path} cannot be preprocessed: the bundle states no preprocessing. Give a .npz file with one array an "
            "input, or use load() and pass arrays."
        )
    if isinstance(preprocessing, FlowPreprocessing):
        raise InputError(f"{path} is one file; optical flow takes two frames, the first and the second.")
    if raw:
        return _read_raw(path, preprocessing, axes)
    if isinstance(preprocessing, ImagePreprocessing):
        return {"pixel_values": preprocess_image(read_image(path), preprocessing)[None]}
    if isinstance(preprocessing, AudioPreprocessing):
        example = preprocess_sound(read_sound(path, preprocessing.sample_rate), preprocessing)
        return {name: array[None] for name, array in example.items()}
    if isinstance(preprocessing, VideoPreprocessing):
        return read_video(path, preprocessing)
    if isinstance(preprocessing, PointsPreprocessing):
        return read_points(path, preprocessing)
    if isinstance(preprocessing, EntitiesPreprocessing):
        return read_row(path, preprocessing)
    return read_tokens(path, preprocessing, axes["length"])


def _read_raw(path: Path, preprocessing: Preprocessing, axes: Mapping[str, Axis]) -> Arrays:
    if isinstance(preprocessing, ImagePreprocessing):
        return {"image_uint8": np.asarray(read_image(path))[None]}
    if isinstance(preprocessing, AudioPreprocessing):
        return {"pcm": read_pcm(path, preprocessing.sample_rate)[None]}
    if isinstance(preprocessing, VideoPreprocessing):
        return read_raw_video(path, preprocessing)
    if isinstance(preprocessing, TextPreprocessing):
        return read_utf8(path, preprocessing, axes["length"])
    raise InputError(f"{path} cannot be read as raw data: there is none for the preprocessing {preprocessing.kind!r}.")


def read_arrays(path: Path) -> Arrays:
    """All arrays of a .npz file by name.

    Raises:
        InputError: not a readable .npz file.
    """
    try:
        with path.open("rb") as raw:
            if not zipfile.is_zipfile(raw):  # numpy would take it for a pickle
                raise InputError(
                    f"{path} is not a .npz file: it is not a zip archive of arrays, or a damaged one. Write it with "
                    "numpy.savez."
                )
            raw.seek(0)
            with np.load(raw, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist. Give a .npz file that does.") from None
    except ValueError:
        raise InputError(
            f"{path} holds an array that is damaged, or of Python objects. Write it with numpy.savez, of numbers alone."
        ) from None
    except (OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read as a .npz file ({error}). Write it with numpy.savez.") from None
