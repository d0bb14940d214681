"""Rated texts as data sets: what their targets mean and how they are split."""

from __future__ import annotations

import os

import numpy as np
import pytest

from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.data.media.text import decode
from perceiver_deploy.data.sets.snippets import LENGTH, PREPROCESSING, TASK_LABELS
from perceiver_deploy.errors import MissingError


@pytest.fixture(scope="module", params=["sentiment", "text-tasks"])
def data(request):
    try:
        return load_dataset(request.param)
    except MissingError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


def texts(split):
    return [decode(ids, PREPROCESSING) for ids in split.inputs["input_ids"]]


def test_no_text_is_in_both_splits(data):
    assert len(data.test) / (len(data.train) + len(data.test)) == pytest.approx(0.2, abs=0.02)
    assert set(texts(data.train)) & set(texts(data.test)) == set()


def test_texts_end_in_sep_and_masks_cover_them(data):
    ids, mask = data.test.inputs["input_ids"], data.test.inputs["attention_mask"]
    ends = mask.sum(1) - 1
    assert ids.shape[1] == LENGTH
    assert (ids[np.arange(len(ids)), ends] == PREPROCESSING.sep_id).all()
    assert np.array_equal(mask == 1, ids != PREPROCESSING.pad_id)


def test_targets_are_what_people_said_of_known_texts(data):
    found = dict(zip(texts(data.train) + texts(data.test), [*data.train.targets, *data.test.targets], strict=True))
    if data.name == "sentiment":
        assert found["Effective but too tepid biopic"] == 0  # rated -0.6
    else:
        assert list(found["Yay. Another good phone interview."]) == [1, TASK_LABELS["source"].index("tweet")]


def test_perfect_logits_score_one_in_every_metric(data):
    classes = 2 if data.name == "sentiment" else 4
    logits = np.eye(classes, dtype=np.float32)[data.test.targets]
    for metric in data.metrics:
        assert metric.scores({"logits": logits}, data.test.inputs, data.test.targets).mean() == 1
        assert metric.scores({"logits": -logits}, data.test.inputs, data.test.targets).mean() == 0
