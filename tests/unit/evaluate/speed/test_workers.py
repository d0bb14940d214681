"""Warming up until runs stop getting faster."""

from __future__ import annotations

import pytest

from perceiver_deploy.evaluate.speed.workers import warm_up


class Times:
    """Answers `time_run` with given seconds."""

    def __init__(self, *seconds):
        self.seconds = iter(seconds)

    def time_run(self):
        return next(self.seconds)


def test_warm_up_goes_on_while_runs_get_faster():
    falling = [1.0, 0.9, 0.8, 0.6, 0.5, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    runs, stable = warm_up(Times(*falling), seconds=100)
    assert (runs, stable) == (11, True)  # the first at which the medians of the last six runs are 0.3 and 0.3
    assert warm_up(Times(*[1.0] * 6), seconds=100) == (6, True)


@pytest.mark.parametrize(("each", "runs"), [(1.0, 3), (0.5, 5)])
def test_warm_up_ends_when_its_time_is_over_and_says_so(each, runs):
    assert warm_up(Times(*[each] * 6), seconds=2) == (runs, False)
