"""What a calibration has counted so far, kept in a file so that a killed one goes on where it was."""

from __future__ import annotations

import io
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.cache import write_whole
from perceiver_deploy.progress import log

SECONDS_BETWEEN_SAVES = 20.0


class Statistic(Protocol):
    """What is kept of a tensor's values."""

    def add(self, values: NDArray[Any]) -> None:
        """Look at values; an `InputError` says why they cannot be used."""

    def to_array(self) -> NDArray[np.float64]:
        """All that is kept."""

    def restore(self, array: NDArray[np.float64]) -> None:
        """Take over what `to_array` of another one gave."""


class PartialResults:
    """Statistics after a number of steps, saved now and then to `path`; `None` keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._saved = time.monotonic()

    def load(self, statistics: Mapping[str, Statistic]) -> int:
        """Fill the statistics with what was saved of the same tensors; returns the steps that are done."""
        if self._path is None or not self._path.exists():
            return 0
        try:
            with np.load(self._path, allow_pickle=False) as file:
                arrays, steps = {name: file[f"tensor.{name}"] for name in statistics}, int(file["steps"])
            for name, statistic in statistics.items():
                if (found := arrays[name].shape) != (expected := statistic.to_array().shape):
                    raise ValueError(f"{name} has the shape {found}; expected {expected}")
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            log.warning("Partial results %s cannot be used (%s); calibrating from the beginning", self._path, error)
            return 0
        for name, statistic in statistics.items():
            statistic.restore(arrays[name])
        log.info("Calibration goes on after %d steps that an earlier run did", steps)
        return steps

    def save(self, statistics: Mapping[str, Statistic], steps: int) -> None:
        """Save unless that was done a moment ago."""
        if self._path is None or time.monotonic() - self._saved < SECONDS_BETWEEN_SAVES:
            return
        content = io.BytesIO()
        arrays = {f"tensor.{name}": statistic.to_array() for name, statistic in statistics.items()}
        np.savez_compressed(content, allow_pickle=False, steps=np.array(steps), **arrays)
        write_whole(self._path, content.getvalue())
        self._saved = time.monotonic()

    def remove(self) -> None:
        """All is counted."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
