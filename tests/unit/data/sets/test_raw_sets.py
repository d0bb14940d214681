from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from perceiver_deploy.bundle.preprocessing import AudioPreprocessing, FlowPreprocessing, TextPreprocessing
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.media.flow import extract_patches
from perceiver_deploy.data.media.images import normalize
from perceiver_deploy.data.media.text import encode
from perceiver_deploy.data.sets.digits import load_digits
from perceiver_deploy.data.sets.raw_sets import raw_data_set
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import InputError


def data_set(preprocessing: Any, inputs: dict[str, Any], targets: Any, **changes: Any) -> DataSet:
    split = Split(inputs, targets)
    return dataclasses.replace(load_digits(), preprocessing=preprocessing, train=split, test=split, **changes)


def test_digits_in_raw_form_are_the_pixels_that_they_were_made_of() -> None:
    data = load_digits()
    raw = raw_data_set(data).test
    pixels = normalize(raw.inputs["image_uint8"], data.preprocessing)
    np.testing.assert_array_equal(pixels, data.test.inputs["pixel_values"])
    np.testing.assert_array_equal(raw.targets, data.test.targets)


def test_text_in_raw_form_is_what_stands_between_cls_and_sep() -> None:
    rows = [encode(text, TextPreprocessing()) for text in ("a[MASK]c", "d")]
    ids = np.stack([np.pad(row, (0, 5 - len(row))) for row in rows])
    mask = (np.arange(5) < np.array([[5], [3]])).astype(np.int64)
    inputs = {"input_ids": ids, "attention_mask": mask}
    raw = raw_data_set(data_set(TextPreprocessing(), inputs, ids.copy(), task="masked_lm")).test
    assert raw.inputs["utf8"][0].tobytes() == b"a\xffc"
    assert raw.inputs["utf8"][1, :1].tobytes() == b"d"
    np.testing.assert_array_equal(raw.inputs["attention_mask"], [[1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(raw.targets, ids[:, 1:-1])


def test_flow_in_raw_form_is_the_frames_and_is_judged_in_pixels() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 2, 5, 4, 3), dtype=np.uint8)
    target = np.ones((2, 5, 4, 2), np.float32)
    raw = raw_data_set(data_set(FlowPreprocessing(), {"patches": extract_patches(frames)}, target))
    np.testing.assert_array_equal(raw.test.inputs["frames_uint8"], frames)
    np.testing.assert_array_equal(raw.metrics[0].scores({"flow": target}, {}, target), [0, 0])


def test_sounds_of_many_lengths_have_no_raw_form() -> None:
    preprocessing = AudioPreprocessing(sample_rate=8, samples=8, samples_per_patch=4)
    data = data_set(preprocessing, {"audio": np.zeros((2, 8, 1), np.float32)}, np.zeros(2))
    with pytest.raises(InputError, match="do not tell the raw data"):
        raw_data_set(data)
