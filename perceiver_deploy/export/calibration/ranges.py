"""Ranges of a graph's tensors as a bundle keeps them: `calibration/*.json`, with what they were measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from perceiver_deploy.bundle.bundle import sha256
from perceiver_deploy.errors import InputError
from perceiver_deploy.export.calibration.histogram import Histogram
from perceiver_deploy.export.calibration.thresholds import Method, choose_threshold, lost_share
from perceiver_deploy.export.graph.files import model_files
from perceiver_deploy.strict import Strict, first_problem


class TensorRange(Strict):
    """The extremes that a tensor was seen to hold, and the largest magnitude that INT8 shall represent.

    `lost`: what `thresholds.lost_share` says of it.
    """

    low: float
    high: float
    threshold: float
    lost: float


class Ranges(Strict):
    """Ranges by tensor, the method of their thresholds, and digests of the graph and of the data they are of."""

    method: Method
    samples: int
    graph_sha256: str
    data_sha256: str
    tensors: dict[str, TensorRange]

    def limits(self) -> dict[str, tuple[float, float]]:
        """What of each tensor INT8 shall represent: (low, high) within its threshold."""
        return {
            name: (max(found.low, -found.threshold), min(found.high, found.threshold))
            for name, found in self.tensors.items()
        }

    def lost(self) -> dict[str, float]:
        """The share of each tensor that INT8 loses."""
        return {name: found.lost for name, found in self.tensors.items()}

    def to_json(self) -> str:
        """Text of the file, ending in a newline."""
        return self.model_dump_json(indent=1) + "\n"


def choose_ranges(histograms: Mapping[str, Histogram], method: Method) -> dict[str, TensorRange]:
    """Ranges with thresholds of a method, by tensor."""
    return {name: _choose_range(seen, method) for name, seen in histograms.items()}


def _choose_range(seen: Histogram, method: Method) -> TensorRange:
    threshold = choose_threshold(seen, method)
    return TensorRange(low=seen.low, high=seen.high, threshold=threshold, lost=lost_share(seen, threshold))


def read_ranges(path: Path) -> Ranges:
    """Ranges from a file.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    try:
        return Ranges.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Ranges {path} cannot be read: {getattr(error, 'strerror', error)}.") from error
    except ValidationError as error:
        raise InputError(
            f"{path} does not hold ranges: {first_problem(error, 'the file')}. "
            "Give a file that convert wrote to a bundle's calibration/ folder."
        ) from error


def graph_digest(path: Path) -> str:
    """SHA-256 of an ONNX file, or of the digests of it and of the files that hold its weights."""
    digests = [sha256(file) for file in model_files(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
