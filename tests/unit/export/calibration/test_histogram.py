"""The histogram of calibration: exact extremes and counts, in bounded memory, however values come."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.errors import InputError
from perceiver_deploy.export.calibration.histogram import BINS, Histogram


def filled(*parts):
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


def test_extremes_are_exact_and_every_value_is_counted_once():
    values = np.random.default_rng(0).standard_normal(10_001).astype(np.float32)
    histogram = filled(values[:3000], values[3000:])
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    assert histogram.counts.sum() == histogram.magnitudes().sum() == values.size
    edges = np.arange(-BINS, BINS + 1) * histogram.width
    # bins are [edge, next edge), the last one closed, as numpy has them
    assert (histogram.counts == np.histogram(values.astype(np.float64), edges)[0]).all()


@pytest.mark.parametrize("largest", [1e-30, 1.0, 3e38])
def test_values_in_any_order_give_the_same_counts(largest):
    values = (np.random.default_rng(1).random(5000) * largest * 0.999).astype(np.float32)
    values[17] = largest
    ascending, descending, pieces = filled(np.sort(values)), filled(np.sort(values)[::-1]), filled(*values[:200, None])
    pieces.add(values[200:])
    for other in (descending, pieces):
        assert other.width == ascending.width
        assert (other.counts == ascending.counts).all()
    assert largest <= BINS * ascending.width <= 2 * largest or largest < 1e-20  # no wider than needed


def test_what_is_saved_is_what_is_restored():
    histogram = filled([-1.5, 0.25, 3.0])
    restored = Histogram()
    restored.restore(histogram.to_array())
    for either in (histogram, restored):
        either.add(np.array([7.0, -9.0], np.float32))
    assert (restored.to_array() == histogram.to_array()).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_and_nothing_is_counted(bad):
    histogram = filled([1.0])
    before = histogram.to_array()
    with pytest.raises(InputError, match="not finite"):
        histogram.add(np.array([0.5, bad], np.float32))
    assert (histogram.to_array() == before).all()
