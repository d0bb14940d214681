"""Paired statistics against values from the literature, SciPy or the normal distribution."""

import numpy as np
import pytest
from scipy import stats

from perceiver_deploy.statistics import mcnemar, paired_difference


def test_interval_of_a_large_sample_of_pairs_is_that_of_the_normal_distribution():
    rng = np.random.default_rng(3)
    shared = rng.normal(0.0, 10.0, 1500)  # what both scores have in common must not widen the interval
    first, second = shared + rng.normal(1.0, 1.0, 1500), shared + rng.normal(0.0, 1.0, 1500)
    found = paired_difference(first, second)
    spread = 1.96 * (first - second).std() / np.sqrt(1500)
    assert (found.mean, found.pairs) == (pytest.approx((first - second).mean()), 1500)
    # ten thousand resamples place a 2.5 % quantile to about 3 % of the spread
    assert found.interval == pytest.approx((found.mean - spread, found.mean + spread), abs=0.1 * spread)


def test_interval_is_the_same_each_time_and_another_with_another_seed():
    first, second = np.random.default_rng(0).normal(size=(2, 40))
    assert paired_difference(first, second) == paired_difference(first, second)
    assert paired_difference(first, second) != paired_difference(first, second, seed=1)


def test_equal_scores_have_a_difference_of_exactly_zero():
    scores = np.random.default_rng(0).normal(size=50)
    assert paired_difference(scores, scores.copy()).interval == (0.0, 0.0)


def test_pairs_without_two_numbers_do_not_count():
    found = paired_difference(np.array([1.0, np.nan, np.inf, 3.0]), np.array([0.0, 1.0, np.inf, 2.0]))
    assert (found.mean, found.pairs) == (1.0, 2)
    with pytest.raises(ValueError, match="none of 1 pairs"):
        paired_difference(np.array([np.nan]), np.array([1.0]))
    with pytest.raises(ValueError, match="one shape"):
        paired_difference(np.ones(3), np.ones(2))


def hits(both, lost, won, neither):
    first = np.repeat([1, 0, 1, 0], [both, lost, won, neither])
    second = np.repeat([1, 1, 0, 0], [both, lost, won, neither])
    return first, second


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (5, 0), (6, 0), (3, 9), (10, 10), (2, 1), (400, 350)])
def test_mcnemar_equals_the_exact_binomial_test_of_scipy(lost, won):
    found = mcnemar(*hits(30, lost, won, 7))
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert (found.lost, found.won, found.p_value) == (lost, won, pytest.approx(expected, rel=1e-9))


def test_five_losses_to_nothing_may_be_chance_and_six_are_not():
    assert not mcnemar(*hits(100, 5, 0, 0)).significant  # p = 2 / 32
    assert mcnemar(*hits(100, 6, 0, 0)).significant  # p = 2 / 64


def test_mcnemar_refuses_what_is_not_hits_and_misses():
    with pytest.raises(ValueError, match="hits and misses"):
        mcnemar(np.array([0.5, 1.0]), np.array([0.0, 1.0]))
