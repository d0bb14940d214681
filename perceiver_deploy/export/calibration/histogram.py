"""A histogram of everything a tensor was seen to hold, in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.errors import InputError

BINS = 2048
"""Bins on each side of zero: 16 for every level of int8 at the full range."""
_LEAST_WIDTH = 2.0**-120  # anything smaller counts as this small
_PIECE = 1 << 20
"""Values counted at a time: what counting takes beside them stays below 20 MB."""


class Histogram:
    """Counts in equal bins on both sides of zero, `counts` int64 [2 * BINS], with the exact extremes `low` and `high`.

    Where a value lies beyond the outermost bin, the width is doubled and neighbouring bins are merged, as often as
    needed: nothing is kept of the values, and no count is ever approximated.
    """

    def __init__(self) -> None:
        self.width = _LEAST_WIDTH
        self.counts = np.zeros(2 * BINS, np.int64)
        self.low, self.high = np.inf, -np.inf

    def add(self, values: NDArray[Any]) -> None:
        """Count values of any shape.

        Raises:
            InputError: a value is not finite.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError("it holds values that are not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(abs(low), abs(high)))
        flat = values.ravel()
        for start in range(0, flat.size, _PIECE):
            index = np.floor(flat[start : start + _PIECE] / self.width).astype(np.int64) + BINS
            self.counts += np.bincount(np.minimum(index, 2 * BINS - 1), minlength=2 * BINS)

    def magnitudes(self) -> NDArray[np.int64]:
        """Counts int64 [BINS] by distance from zero, whose upper edges are multiples of `width`."""
        return self.counts[BINS:] + self.counts[:BINS][::-1]

    def to_array(self) -> NDArray[np.float64]:
        """All of it as one array, whole counts exact up to 2**53."""
        return np.array([self.width, self.low, self.high, *self.counts], np.float64)

    def restore(self, array: NDArray[np.float64]) -> None:
        """Take over what `to_array` of another histogram gave."""
        self.width, self.low, self.high = map(float, array[:3])
        self.counts = array[3:].astype(np.int64)

    def _widen(self, largest: float) -> None:
        while largest > BINS * self.width:
            self.width *= 2
            below, above = self.counts.reshape(2, BINS)
            merged = np.zeros_like(self.counts)
            merged[BINS // 2 : BINS] = below.reshape(-1, 2).sum(1)
            merged[BINS : BINS + BINS // 2] = above.reshape(-1, 2).sum(1)
            self.counts = merged
