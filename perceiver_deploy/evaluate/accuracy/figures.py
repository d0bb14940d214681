"""What a candidate's outputs are worth beside eager's: each metric, and what it lost on the same examples."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.metrics import Measured, Metric, are_hits, example_scores, format_value
from perceiver_deploy.evaluate.accuracy.measure import measure_accuracy
from perceiver_deploy.evaluate.parity.verdicts import finite_or_none
from perceiver_deploy.statistics import mcnemar, paired_difference
from perceiver_deploy.strict import Strict


class MetricFigures(Strict):
    """A task metric on the test split.

    In the unit "%" all figures are shares of 1. `drop` is what the mean lost against eager's on the same examples,
    positive where the outputs are worse, with its 95 % interval; None where outputs have no score that eager's have.
    `significant` says that it is not chance: McNemar's exact test where each example is right or wrong, otherwise
    whether the interval leaves out zero. `scores` has one entry an example, None where it does not count.
    """

    metric: str
    unit: str
    higher_is_better: bool
    value: float
    interval: tuple[float, float]
    examples: int
    drop: float | None
    drop_interval: tuple[float, float] | None
    significant: bool
    scores: tuple[float | None, ...]

    def value_text(self) -> str:
        """`97.33 %`."""
        return format_value(self.value, self.unit)

    def drop_text(self) -> str:
        """`0.22 points (-0.22 to 0.67)`."""
        if self.drop is None or self.drop_interval is None:
            return "everything"
        scale, unit = (100, "points") if self.unit == "%" else (1, self.unit)
        drop, low, high = (round(scale * value, 2) + 0.0 for value in (self.drop, *self.drop_interval))  # no -0.00
        return f"{drop:.2f} {unit} ({low:.2f} to {high:.2f})"


class AccuracyFigures(Strict):
    """Metrics, and the first output beside eager's: `agreement` is the share of examples with the same top-1."""

    metrics: tuple[MetricFigures, ...]
    agreement: float | None
    relative_l2: float | None


def accuracy_figures(outputs: Arrays, eager: Arrays, data: DataSet) -> AccuracyFigures:
    """The metrics of outputs for the test split, with what each lost against eager's."""
    found = measure_accuracy(outputs, eager, data)
    return AccuracyFigures(
        metrics=tuple(
            _metric_figures(
                measured, metric, *(example_scores(metric, each, data.test).ravel() for each in (outputs, eager))
            )
            for measured, metric in zip(found.metrics, data.metrics, strict=True)
        ),
        agreement=found.agreement,
        relative_l2=finite_or_none(found.relative_l2),
    )


def _metric_figures(
    measured: Measured, metric: Metric, found: NDArray[np.float64], eager: NDArray[np.float64]
) -> MetricFigures:
    drop = lost(found, eager, higher_is_better=metric.higher_is_better)
    return MetricFigures(
        **measured.to_json(),
        drop=None if drop is None else drop[0],
        drop_interval=None if drop is None else drop[1],
        significant=drop is None or drop[2],
        scores=tuple(None if math.isnan(score) else float(score) for score in found),
    )


def lost(
    found: NDArray[np.float64], before: NDArray[np.float64], *, higher_is_better: bool
) -> tuple[float, tuple[float, float], bool] | None:
    """What scores [examples] lost in the mean against others, its interval, and whether that is not chance.

    None where an example has lost its score, and so everything.
    """
    if (np.isnan(found) & ~np.isnan(before)).any():
        return None
    difference = paired_difference(*((before, found) if higher_is_better else (found, before)))
    if are_hits(found) and are_hits(before):
        significant = mcnemar(found, before).significant
    else:
        low, high = difference.interval
        significant = low > 0 or high < 0
    return difference.mean, difference.interval, significant
