"""The masked bytes of CPython's help topics: how they are split and judged."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.data.media.text import decode
from perceiver_deploy.data.metrics import measure
from perceiver_deploy.data.sets.topics import BITS_PER_BYTE, IGNORED, LENGTH, MASKED, PREPROCESSING, load_topics


@pytest.fixture(scope="module")
def data():
    return load_topics()


def text(split):
    ids = np.where(split.targets == IGNORED, split.inputs["input_ids"], split.targets)
    return "".join(decode(window, PREPROCESSING) for window in ids)


def test_no_passage_is_in_both_splits(data):
    train, test = (
        {passage.strip() for passage in text(split).split("\n\n")} - {""} for split in (data.train, data.test)
    )
    assert len(train) > 1000
    assert len(test) > 100
    assert train & test == set()


def test_splits_and_masks_are_always_the_same(data):
    again = load_topics()
    for split, other in ((data.train, again.train), (data.test, again.test)):
        assert np.array_equal(split.inputs["input_ids"], other.inputs["input_ids"])
        assert np.array_equal(split.targets, other.targets)


def test_every_window_has_15_percent_of_its_bytes_masked_and_only_those_are_targets(data):
    for split in (data.train, data.test):
        ids = split.inputs["input_ids"]
        masked = ids == PREPROCESSING.mask_id
        assert (masked.sum(1) == MASKED).all()
        assert round(0.15 * (LENGTH - 2)) == MASKED
        assert np.array_equal(masked, split.targets != IGNORED)
        assert (split.targets[masked] >= PREPROCESSING.byte_offset).all()
        assert (ids[:, 0] == PREPROCESSING.cls_id).all()
        assert (ids[:, -1] == PREPROCESSING.sep_id).all()


def test_bits_per_byte_are_those_of_the_probability_given_to_the_masked_bytes(data):
    vocabulary = 262
    even = np.zeros((len(data.test), LENGTH, vocabulary), np.float32)
    assert measure({"logits": even}, data.test, [BITS_PER_BYTE])[0].value == pytest.approx(np.log2(vocabulary))
    places = np.nonzero(data.test.targets != IGNORED)
    even[(*places, data.test.targets[places])] = np.log(vocabulary - 1)  # an even chance for the right byte
    assert measure({"logits": even}, data.test, [BITS_PER_BYTE])[0].value == pytest.approx(
        1, abs=1e-5
    )  # the logits are float32
