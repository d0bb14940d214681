"""What is asked of samples, be they calibrated on or judged on, and their digest."""

from __future__ import annotations

import hashlib

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import InputError

LEAST_SAMPLES = 2
ADVISED_SAMPLES = 32


def require_samples(data: Split, name: str, purpose: str, reason: str) -> None:
    """Refuse too few samples, for a reason, and values that are not finite. The targets are the numbers of the rows.

    Raises:
        InputError: too few, or not finite; `name` says where the samples are from.
    """
    if len(data) < LEAST_SAMPLES:
        raise InputError(
            f"{name} gives {len(data)} {purpose} sample; expected at least {LEAST_SAMPLES}, better "
            f"{ADVISED_SAMPLES} or more: {reason}. Give more data."
        )
    for key, array in data.rows(slice(None)).items():
        if not (finite := np.isfinite(array)).all():
            first = int(np.argwhere(~finite)[0][0])
            row = data.targets[first] if key in data.inputs else first
            raise InputError(
                f"{purpose.capitalize()} input {key!r} of {name} holds values that are not finite, first in row {row}. "
                "Remove those samples."
            )


def arrays_digest(data: Arrays) -> str:
    """SHA-256 of arrays with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name in sorted(data):
        digest.update(f"{name} {data[name].dtype} {data[name].shape}".encode())
        digest.update(np.ascontiguousarray(data[name]).data)
    return digest.hexdigest()
