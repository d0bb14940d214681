"""The n-gram model that masked bytes are compared with."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.data.sets.topics import PREPROCESSING
from perceiver_deploy.train.baselines.byte_ngrams import ByteNgrams

A, B, C = 97, 98, 99
TEXT = [np.array([A, B, A, B, A, C])]


def test_probabilities_are_witten_and_bells():
    # alone: 6 tokens of 3 kinds; after A: B twice, C once, 2 kinds
    model = ByteNgrams(TEXT, order=2)
    alone = model.probabilities(np.array([], np.int64))
    assert alone[B] == pytest.approx(2 / 9 + 3 / 9 / 262)
    after = model.probabilities(np.array([A]))
    assert after[B] == pytest.approx(2 / 5 + 2 / 5 * alone[B])
    assert after.sum() == pytest.approx(1)


def test_context_before_a_mask_does_not_count():
    model = ByteNgrams(TEXT, order=3)
    masked = model.probabilities(np.array([B, PREPROCESSING.mask_id, A]))
    assert np.array_equal(masked, model.probabilities(np.array([A])))
    assert not np.array_equal(masked, model.probabilities(np.array([B, A])))


def test_context_never_seen_falls_back_to_the_shorter_one():
    model = ByteNgrams(TEXT, order=3)
    assert np.array_equal(model.probabilities(np.array([C, A])), model.probabilities(np.array([A])))
