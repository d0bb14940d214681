"""Thresholds of each method on distributions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.export.calibration.histogram import Histogram
from perceiver_deploy.export.calibration.thresholds import LEVELS, PERCENTILE, choose_threshold, lost_share

METHODS = ("minmax", "percentile", "entropy", "mse")


def histogram_of(values):
    histogram = Histogram()
    histogram.add(np.asarray(values, np.float32))
    return histogram


def squared_error(values, threshold):
    step = threshold / LEVELS
    return float(np.mean((values - np.clip(np.round(values / step), -LEVELS, LEVELS) * step) ** 2))


@pytest.mark.parametrize("method", METHODS)
def test_uniform_values_keep_their_range(method):
    values = np.random.default_rng(0).uniform(-2, 2, 100_000)
    # a method may cut the last hundredth, which holds no more than its share of the values
    assert 1.95 <= choose_threshold(histogram_of(values), method) <= 2


def test_minmax_is_the_largest_magnitude_on_either_side():
    assert choose_threshold(histogram_of([-3.0, 1.0]), "minmax") == 3
    assert choose_threshold(histogram_of([-1.0, 4.0]), "minmax") == 4


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_one_outlier_among_many_values_is_cut_off(method):
    values = np.append(np.random.default_rng(1).standard_normal(200_000), 500.0)
    # squared errors weigh one value at 500 as much as the rounding of all others: they meet it half way
    assert choose_threshold(histogram_of(values), method) < (300 if method == "mse" else 60)


def test_percentile_leaves_at_most_its_share_beyond():
    values = np.random.default_rng(2).standard_normal(300_000)
    threshold = choose_threshold(histogram_of(values), "percentile")
    assert (np.abs(values) > threshold).mean() <= 1 - PERCENTILE / 100
    assert (np.abs(values) > 0.98 * threshold).mean() > 1 - PERCENTILE / 100


def test_mse_is_as_good_as_the_best_of_a_fine_search():
    values = np.random.default_rng(3).laplace(size=100_000)
    found = squared_error(values, choose_threshold(histogram_of(values), "mse"))
    best = min(squared_error(values, threshold) for threshold in np.linspace(0.05, 1, 200) * np.abs(values).max())
    # 5 %: candidates are 16 bins apart, and bins stand for their values' centres
    assert found <= 1.05 * best


@pytest.mark.parametrize("method", METHODS)
def test_no_threshold_exceeds_what_was_seen_and_zeros_do_not_decide(method):
    values = np.concatenate([np.zeros(500_000), np.random.default_rng(4).uniform(0.5, 1, 1000)])
    assert 0.9 <= choose_threshold(histogram_of(values), method) <= 1


def test_lost_share_is_the_part_of_the_sum_below_half_a_step_or_beyond_the_threshold():
    values = np.concatenate([np.full(1000, 0.003), np.full(10, 0.9), [1.0]])  # half a step of int8 at 1 is 0.0039
    total = 3.0 + 9.0 + 1.0
    assert lost_share(histogram_of(values), 1.0) == pytest.approx(3.0 / total, rel=0.1)  # a bin is 0.0005 wide
    assert lost_share(histogram_of(-values), 1.0) == pytest.approx(3.0 / total, rel=0.1)
    assert lost_share(histogram_of(values), 0.5) == pytest.approx((10 * 0.4 + 0.5) / total, rel=0.05)
