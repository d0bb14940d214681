"""Which of several candidates is fastest, when the machine is shared and its speed changes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
LEAST_ROUNDS = 6
"""Fewer rounds cannot give an interval of that confidence: their smallest and largest ratio enclose the median with
probability 1 - 2 ** (1 - rounds)."""
WORTH = 1.02
"""How much faster a candidate must be to be preferred to a simpler one."""
TOO_WIDE = 1.25
"""An interval that reaches from the fastest to beyond this says that the machine is too noisy."""


@dataclass(frozen=True)
class Interval:
    """Confidence interval of a candidate's time over that of the fastest, from the ratios of each round."""

    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """Candidates by index, the simplest first.

    Attributes:
        fastest: the one of the smallest median.
        intervals: of every candidate.
        tied: those not measurably slower than the fastest.
    """

    fastest: int
    intervals: tuple[Interval, ...]
    tied: tuple[int, ...]

    @property
    def chosen(self) -> int:
        """The simplest of those that are tied."""
        return self.tied[0]

    @property
    def noisy(self) -> bool:
        """Whether one of those that are tied could also be slower by more than a quarter."""
        return any(self.intervals[index].high > TOO_WIDE for index in self.tied)


def rank(samples: Sequence[Sequence[float]]) -> Ranking:
    """Rank candidates, the simplest first, by seconds that were measured in the same rounds.

    A round compares candidates on the same machine at the same moment, so the ratios of a round are compared, and the
    interval of their median is that of order statistics, which assumes nothing about their distribution.

    Raises:
        ValueError: no candidate, rounds that differ in number, or too few of them.
    """
    rounds = {len(seconds) for seconds in samples}
    if len(rounds) != 1 or min(rounds) < LEAST_ROUNDS:
        raise ValueError(f"ranking needs candidates with {LEAST_ROUNDS} or more rounds each, got {sorted(rounds)}")
    medians = [statistics.median(seconds) for seconds in samples]
    fastest = medians.index(min(medians))
    intervals = tuple(
        median_interval([one / best for one, best in zip(seconds, samples[fastest], strict=True)])
        for seconds in samples
    )
    tied = tuple(index for index, interval in enumerate(intervals) if interval.low <= WORTH)
    return Ranking(fastest, intervals, tied)


def median_interval(values: Sequence[float]) -> Interval:
    """The narrowest pair of order statistics that encloses the median with `CONFIDENCE`."""
    ordered, count = sorted(values), len(values)
    outside, left_out = 0.0, 0
    while outside + (term := math.comb(count, left_out) / 2 ** (count - 1)) <= 1 - CONFIDENCE:
        outside += term
        left_out += 1
    return Interval(ordered[left_out - 1], ordered[count - left_out])
