"""How sure a figure is, and whether two results on the same examples differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.959964
_RESAMPLES = 10_000
SIGNIFICANT = 0.05
"""A p-value below it says that a difference is not chance."""


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % confidence interval of a share seen in `count` independent examples (Wilson, 1927)."""
    centre = share + _Z95**2 / (2 * count)
    spread = _Z95 * math.sqrt(share * (1 - share) / count + _Z95**2 / (4 * count**2))
    scale = 1 + _Z95**2 / count
    return (centre - spread) / scale, (centre + spread) / scale


def bootstrap_interval(scores: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of scores [examples], from seeded resamples (Efron, 1979)."""
    rng = np.random.default_rng(seed)
    means = [float(scores[rng.integers(len(scores), size=len(scores))].mean()) for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of paired scores, its 95 % interval, and how many pairs there were."""

    mean: float
    interval: tuple[float, float]
    pairs: int


def paired_difference(first: NDArray[Any], second: NDArray[Any], seed: int = 0) -> PairedDifference:
    """`first` minus `second` in the mean, both [examples], with the interval of seeded resamples of the pairs.

    A pair does not count where either score is NaN, or both are the same infinity and so do not differ by a number.

    Raises:
        ValueError: different shapes, or no pair counts.
    """
    found, wanted = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if found.shape != wanted.shape or found.ndim != 1:
        raise ValueError(f"paired scores need one shape [examples], got {found.shape} and {wanted.shape}")
    with np.errstate(invalid="ignore"):
        differences = found - wanted
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        raise ValueError(f"none of {len(found)} pairs has two scores that are numbers")
    if (differences == differences[0]).all():
        mean = float(differences[0])
        return PairedDifference(mean, (mean, mean), len(differences))
    return PairedDifference(float(differences.mean()), bootstrap_interval(differences, seed), len(differences))


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test (1947; two-sided binomial) of two classifiers on the same examples.

    `lost` were right with the second alone, `won` with the first alone; `p_value` is the probability of at least such
    an imbalance where neither is better.
    """

    lost: int
    won: int
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the imbalance is not chance at the level of 5 %."""
        return self.p_value < SIGNIFICANT


def mcnemar(first: NDArray[Any], second: NDArray[Any]) -> McNemar:
    """Test hits (true or 1) of two classifiers, both [examples].

    Raises:
        ValueError: different shapes, or entries that are neither 0 nor 1.
    """
    found, wanted = np.asarray(first), np.asarray(second)
    if found.shape != wanted.shape or not (np.isin(found, (0, 1)).all() and np.isin(wanted, (0, 1)).all()):
        raise ValueError(f"McNemar's test needs hits and misses of one shape, got {found.shape} and {wanted.shape}")
    lost, won = int((wanted > found).sum()), int((found > wanted).sum())
    count, least = lost + won, min(lost, won)
    tail = sum(math.comb(count, k) for k in range(least + 1))
    return McNemar(lost, won, min(1.0, 2 * tail / 2**count))
