"""What a candidate's outputs are worth beside eager's: each metric, and what it lost on the same examples."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.metrics import Measured, Metric, are_hits, example_scores
from perceiver_deploy.evaluate.accuracy import measure_accuracy
from perceiver_deploy.evaluate.benchmark_report import AccuracyFigures, MetricFigures
from perceiver_deploy.evaluate.parity import finite_or_none
from perceiver_deploy.evaluate.statistics import mcnemar, paired_difference


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
