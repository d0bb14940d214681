"""Where a range is cut: beyond the threshold, values saturate; within, int8 has 127 levels on each side of zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.export.calibration.histogram import BINS, Histogram

Method = Literal["minmax", "percentile", "entropy", "mse"]
LEVELS = 127
PERCENTILE = 99.99
_CANDIDATES = np.arange(LEVELS + 1, BINS + 1, 16)
"""Numbers of bins within the threshold. Below one bin a level, a histogram cannot tell thresholds apart."""


def choose_threshold(histogram: Histogram, method: Method) -> float:
    """The largest magnitude that int8 shall represent, at most the largest that was seen.

    "minmax": the largest seen. "percentile": 99.99 % of the values lie within. "mse": least mean squared error.
    "entropy": least Kullback-Leibler divergence of the distribution of values, as in TensorRT's calibration
    (S. Migacz, "8-bit inference with TensorRT", GTC 2017).
    """
    largest = max(-histogram.low, histogram.high)
    return largest if method == "minmax" else min(largest, _METHODS[method](histogram))


def lost_share(histogram: Histogram, threshold: float) -> float:
    """Share of the sum of magnitudes that int8 loses: values that it rounds to zero, and all beyond the threshold."""
    counts = histogram.magnitudes()
    magnitudes = (np.arange(BINS) + 0.5) * histogram.width
    small = int(np.floor(threshold / LEVELS / 2 / histogram.width))
    lost = counts[:small] @ magnitudes[:small] + counts @ np.maximum(magnitudes - threshold, 0)
    return float(lost / (counts @ magnitudes)) if counts.any() else 0.0


def _percentile(histogram: Histogram) -> float:
    cumulated = np.cumsum(histogram.magnitudes())
    bins = int(np.searchsorted(cumulated, cumulated[-1] * PERCENTILE / 100)) + 1
    return bins * histogram.width


def _least_squares(histogram: Histogram) -> float:
    counts = histogram.magnitudes()
    centres = np.arange(BINS) + 0.5
    errors = []
    for bins in _CANDIDATES:
        step = bins / LEVELS
        quantized = np.minimum(np.round(centres / step), LEVELS) * step
        errors.append(float(counts @ (centres - quantized) ** 2))
    return float(_CANDIDATES[np.argmin(errors)]) * histogram.width


def _least_divergence(histogram: Histogram) -> float:
    counts = histogram.magnitudes().astype(np.float64)
    # Exact zeros (masked scores, ReLU) need no level of their own and would drown the rest.
    counts[0] = counts[1]
    divergences = [_divergence(counts, int(bins)) for bins in _CANDIDATES]
    return float(_CANDIDATES[np.argmin(divergences)]) * histogram.width


def _divergence(counts: NDArray[np.float64], bins: int) -> float:
    """Of the values saturated at `bins`, from what 128 levels leave of those within."""
    within = counts[:bins]
    clipped = within.copy()
    clipped[-1] += counts[bins:].sum()
    starts = np.arange(LEVELS + 1) * bins // (LEVELS + 1)
    occupied = within > 0
    sums, filled = np.add.reduceat(within, starts), np.add.reduceat(occupied.astype(np.float64), starts)
    level = np.repeat(sums / np.maximum(filled, 1), np.diff([*starts, bins]))
    quantized = np.where(occupied, level, 0.0)
    if not quantized.sum():
        return np.inf
    p, q = clipped / clipped.sum(), quantized / quantized.sum()
    seen = p > 0
    if (q[seen] == 0).any():  # all that lies in the last bin was saturated into it
        q = (q + 1e-12) / (1 + 1e-12 * bins)
    return float(np.sum(p[seen] * np.log(p[seen] / q[seen])))


_METHODS: dict[Method, Callable[[Histogram], float]] = {
    "percentile": _percentile,
    "entropy": _least_divergence,
    "mse": _least_squares,
}
