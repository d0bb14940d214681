"""Accuracy: the task metrics of outputs, and their agreement with eager's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.metrics import Measured, measure
from perceiver_deploy.evaluate.parity import compare


@dataclass(frozen=True)
class Accuracy:
    """Metrics with their intervals, and the first output against eager's: `agreement` is the share of equal top-1."""

    metrics: tuple[Measured, ...]
    agreement: float | None
    relative_l2: float

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def measure_accuracy(outputs: Arrays, eager: Arrays, data: DataSet) -> Accuracy:
    """The metrics of outputs for the test split, and how they compare with eager's."""
    first = next(iter(eager))
    figures = compare(outputs[first], eager[first])
    agreement = figures.top1 if first == "logits" else None
    return Accuracy(measure(outputs, data.test, data.metrics), agreement, figures.relative_l2)
