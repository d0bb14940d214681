"""Task metrics, in NumPy, and how sure they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.959964


def top1_accuracy(logits: NDArray[Any], targets: NDArray[np.int64]) -> float:
    """Share of rows [examples, classes] whose largest entry is the target."""
    return float((logits.argmax(-1) == targets).mean())


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % confidence interval of a share seen in `count` independent examples (Wilson, 1927)."""
    centre = share + _Z95**2 / (2 * count)
    spread = _Z95 * math.sqrt(share * (1 - share) / count + _Z95**2 / (4 * count**2))
    scale = 1 + _Z95**2 / count
    return (centre - spread) / scale, (centre + spread) / scale
