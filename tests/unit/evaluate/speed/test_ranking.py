import math
from itertools import product

import numpy as np
import pytest

from perceiver_deploy.evaluate.speed.ranking import rank


def test_the_fastest_is_chosen_when_it_is_faster_in_every_round():
    ranking = rank([[2.0] * 10, [1.0] * 10, [1.5] * 10])
    assert (ranking.chosen, ranking.fastest, ranking.noisy) == (1, 1, False)
    assert [interval.low for interval in ranking.intervals] == [2.0, 1.0, 1.5]


def test_the_simplest_of_those_within_two_percent_is_chosen():
    ranking = rank([[1.5] * 10, [1.019] * 10, [1.0] * 10])
    assert (ranking.chosen, ranking.fastest, ranking.noisy) == (1, 2, False)


def test_a_machine_that_slows_down_halfway_does_not_hide_the_fastest():
    """Each round is compared in itself: medians of all rounds would overlap."""
    speed = [1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 9.0, 9.0]
    ranking = rank([[1.1 * seconds for seconds in speed], speed])
    assert (ranking.chosen, ranking.noisy) == (1, False)


def test_the_simplest_is_kept_and_the_noise_told_when_rounds_contradict_each_other():
    ranking = rank([[1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5, 1.5, 1.5]])
    assert (ranking.chosen, ranking.fastest, ranking.noisy) == (0, 1, True)


@pytest.mark.parametrize("samples", [[], [[1.0] * 5], [[1.0] * 6, [1.0] * 7]])
def test_too_few_rounds_or_rounds_that_differ_in_number_are_refused(samples):
    with pytest.raises(ValueError, match="6 or more rounds each"):
        rank(samples)


@pytest.mark.parametrize("rounds", [6, 9, 12])
def test_the_interval_misses_the_median_in_at_most_one_case_of_twenty(rounds):
    """Counted over every way that rounds can fall on the two sides of a median of 2."""
    missed = 0
    for signs in product((-1, 1), repeat=rounds):
        values = [2 + sign * (0.1 + 0.01 * index) for index, sign in enumerate(signs)]
        interval = rank([values, [1.0] * rounds]).intervals[0]
        missed += not interval.low <= 2 <= interval.high
    assert 0 < missed / 2**rounds <= 0.05


def test_interval_narrows_with_more_rounds():
    rng = np.random.default_rng(0)
    few, many = (rank([np.exp(rng.normal(0.5, 0.1, count)).tolist(), [1.0] * count]) for count in (10, 300))
    assert many.intervals[0].high - many.intervals[0].low < 0.5 * (few.intervals[0].high - few.intervals[0].low)
    assert many.intervals[0].low < math.exp(0.5) < many.intervals[0].high
