"""Arrays by the name of the input or output they are, and how far two of them are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]


def relative_l2(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Norm of the difference over that of `wanted`, in float64; the former alone where the latter is 0.

    Raises:
        ValueError: the shapes differ.
    """
    if found.shape != wanted.shape:
        raise ValueError(f"shape {found.shape} cannot be compared with {wanted.shape}")
    error = float(np.linalg.norm(found.astype(np.float64) - wanted.astype(np.float64)))
    norm = float(np.linalg.norm(wanted.astype(np.float64)))
    return error / norm if norm else error
