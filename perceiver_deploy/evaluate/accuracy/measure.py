"""Accuracy: the task metrics of outputs, their agreement with eager's, and what they lost against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.metrics import Measured, Metric, are_hits, example_scores, format_value, has_classes, measure
from perceiver_deploy.data.split import Split
from perceiver_deploy.evaluate.parity.verdicts import compare, finite_or_none
from perceiver_deploy.statistics import McNemar, mcnemar, paired_difference


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
    agreement = figures.top1 if has_classes(first) else None
    return Accuracy(measure(outputs, data.test, data.metrics), agreement, figures.relative_l2)


@dataclass(frozen=True)
class Drop:
    """What a metric of some outputs lost against eager's on the same examples.

    `drop` and its 95 % `interval` are in the metric's unit (shares of 1 for "%"), positive where the outputs are worse;
    `test` is there where each example is right or wrong.
    """

    metric: str
    unit: str
    eager: float
    value: float
    drop: float
    interval: tuple[float, float]
    examples: int
    test: McNemar | None

    def to_json(self) -> dict[str, Any]:
        """A plain dict. What is not finite is None, as where outputs have lost everything."""
        low, high = map(finite_or_none, self.interval)
        figures = {"value": finite_or_none(self.value), "drop": finite_or_none(self.drop), "interval": (low, high)}
        return asdict(self) | figures

    def text(self) -> str:
        """`top-1 accuracy 99.11 % -> 98.89 %, drop 0.22 points (-0.22 to 0.67)`."""
        values = f"{format_value(self.eager, self.unit)} -> {format_value(self.value, self.unit)}"
        low, high = self.interval
        if self.unit == "%":
            drop, low, high, unit = 100 * self.drop, 100 * low, 100 * high, "points"
            return f"{self.metric} {values}, drop {drop:.2f} {unit} ({low:.2f} to {high:.2f})"
        return f"{self.metric} {values}, drop {self.drop:.4f} {self.unit} ({low:.4f} to {high:.4f})"


def measure_drops(outputs: Arrays, eager: Arrays, data: Split, metrics: Sequence[Metric]) -> tuple[Drop, ...]:
    """What each metric lost on a split for which both outputs are."""
    finite = not any((np.isfinite(wanted) & ~np.isfinite(outputs[name])).any() for name, wanted in eager.items())
    return tuple(_measure_drop(metric, outputs, eager, data, finite=finite) for metric in metrics)


def _measure_drop(metric: Metric, outputs: Arrays, eager: Arrays, data: Split, *, finite: bool) -> Drop:
    """`finite`: whether outputs are where eager's are. Others have lost everything: NaNs have a largest one too."""
    found, wanted = (example_scores(metric, each, data) for each in (outputs, eager))
    eager_value = float(np.nanmean(wanted))
    if not finite or (np.isnan(found) & ~np.isnan(wanted)).any():
        return Drop(metric.name, metric.unit, eager_value, np.nan, np.inf, (np.inf, np.inf), len(wanted), None)
    value = float(np.nanmean(found))
    better, worse = (wanted, found) if metric.higher_is_better else (found, wanted)
    lost = paired_difference(better, worse)
    test = mcnemar(found, wanted) if are_hits(found) and are_hits(wanted) else None
    return Drop(metric.name, metric.unit, eager_value, value, lost.mean, lost.interval, lost.pairs, test)
