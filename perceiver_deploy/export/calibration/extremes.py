"""The extremes of a tensor: all that half precision needs to know of its values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.errors import InputError


class Extremes:
    """The lowest and the highest value seen, a `calibration.Statistic`; both 0 before any was."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0
        self._seen = False

    def add(self, values: NDArray[Any]) -> None:
        """Look at values of any shape.

        Raises:
            InputError: a value is not finite.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError("it holds values that are not finite")
        self.low, self.high = (min(self.low, low), max(self.high, high)) if self._seen else (low, high)
        self._seen = True

    def to_array(self) -> NDArray[np.float64]:
        """All of it as one array."""
        return np.array([self.low, self.high, self._seen], np.float64)

    def restore(self, array: NDArray[np.float64]) -> None:
        """Take over what `to_array` gave."""
        self.low, self.high, self._seen = float(array[0]), float(array[1]), bool(array[2])
