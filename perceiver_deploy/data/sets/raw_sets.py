"""Data sets in raw form, for bundles that take raw data: the bytes that their arrays were made of, got back exactly."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.preprocessing import (
    FlowPreprocessing,
    ImagePreprocessing,
    Preprocessing,
    TextPreprocessing,
    VideoPreprocessing,
)
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.media.flow import end_point_error
from perceiver_deploy.data.media.text import utf8_of
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import InputError

_CENTRE = slice(12, 15)
"""Channels of a flow patch that are the pixel itself."""


def raw_data_set(data: DataSet) -> DataSet:
    """The same examples as raw inputs. Pictures have the size they were resized to, which resizing again leaves alone.

    Raises:
        InputError: the arrays do not tell what they were made of.
    """
    train, test = (_raw_split(data, split) for split in (data.train, data.test))
    metrics = data.metrics
    if isinstance(data.preprocessing, FlowPreprocessing):  # the raw form gives pixels
        metrics = (end_point_error(data.preprocessing.model_copy(update={"output_scale": 1.0})),)
    return dataclasses.replace(data, train=train, test=test, metrics=metrics)


def _raw_split(data: DataSet, split: Split) -> Split:
    raw = _raw_inputs(split.inputs, data.preprocessing)
    if raw is None:
        names = ", ".join(split.inputs)
        raise InputError(
            f"Data set {data.name!r} holds preprocessed arrays ({names}) that do not tell the raw data they were made "
            "of, and the bundle takes raw inputs. Leave the data set out, or use a bundle exported without "
            "--raw-inputs."
        )
    targets = split.targets[:, 1:-1] if data.task == "masked_lm" else split.targets  # CLS and SEP have no answers
    return dataclasses.replace(split, inputs=raw, targets=targets)


def _raw_inputs(inputs: Arrays, preprocessing: Preprocessing | None) -> Arrays | None:
    if isinstance(preprocessing, ImagePreprocessing):
        pixels = inputs["pixel_values"]
        if preprocessing.crop_fraction is None and preprocessing.size in (None, pixels.shape[-2:]):
            mean, std = (np.array(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
            return {"image_uint8": _levels(pixels.astype(np.float64) * std + mean)}
    if isinstance(preprocessing, TextPreprocessing):
        return _bytes(inputs, preprocessing)
    if isinstance(preprocessing, FlowPreprocessing):
        return {"frames_uint8": _levels((inputs["patches"][:, :, _CENTRE].astype(np.float64) + 1) / 2)}
    if isinstance(preprocessing, VideoPreprocessing) and preprocessing.sample_rate is None:
        return {"video_uint8": _levels(inputs["image"])}
    return None


def _levels(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """[..., 3, height, width] in [0, 1] to uint8 [..., height, width, 3]."""
    return np.ascontiguousarray(np.moveaxis(np.round(255 * pixels), -3, -1).astype(np.uint8))


def _bytes(inputs: Arrays, preprocessing: TextPreprocessing) -> Arrays:
    """What is between CLS and SEP; what is not a byte of a text is hidden."""
    ids, mask = (inputs[name][:, 1:-1].astype(np.int64) for name in ("input_ids", "attention_mask"))
    is_byte = (ids >= preprocessing.byte_offset) | (ids == preprocessing.mask_id)
    return {
        "utf8": utf8_of(np.where(is_byte, ids, preprocessing.byte_offset), preprocessing),
        "attention_mask": mask * is_byte,
    }
