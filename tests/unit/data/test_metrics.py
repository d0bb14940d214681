"""Metrics against values from the literature or computed by hand."""

import numpy as np
import pytest

from perceiver_deploy.data.digits import load_digits
from perceiver_deploy.data.metrics import top1_accuracy, wilson_interval


def test_top1_counts_rows_whose_largest_entry_is_the_target():
    assert top1_accuracy(np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]), np.array([1, 1, 1])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_newcombes_table(hits, count, low, high):
    assert wilson_interval(hits / count, count) == pytest.approx((low, high), abs=5e-5)


def test_digits_are_split_without_overlap_and_always_the_same():
    first, second = load_digits(), load_digits()
    assert (len(first.train), len(first.test)) == (1347, 450)
    np.testing.assert_array_equal(first.test.inputs["pixel_values"], second.test.inputs["pixel_values"])
    rows = [split.inputs["pixel_values"].reshape(len(split), -1) for split in (first.train, first.test)]
    assert not {row.tobytes() for row in rows[0]} & {row.tobytes() for row in rows[1]}
