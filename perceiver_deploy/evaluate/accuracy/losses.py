"""What a metric lost against eager on the same examples: the one computation that every verb shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.metrics import Metric, are_hits, example_scores, format_value
from perceiver_deploy.data.split import Split
from perceiver_deploy.evaluate.parity.verdicts import finite_or_none
from perceiver_deploy.statistics import McNemar, mcnemar, paired_difference


@dataclass(frozen=True)
class Loss:
    """What a metric of some outputs lost against eager's, or an earlier run's, on the same examples.

    `drop` and its 95 % `interval` are in the metric's unit (shares of 1 for "%"), positive where the outputs are worse;
    `examples` is how many pairs of scores were compared; `test` is there where each of them is right or wrong. Where an
    example has lost its score everything is lost: `drop` is infinite and `value` NaN.
    """

    metric: str
    unit: str
    eager: float
    value: float
    drop: float
    interval: tuple[float, float]
    examples: int
    test: McNemar | None

    @property
    def everything(self) -> bool:
        """Whether an example has no score that eager's has."""
        return not self.drop < np.inf

    @property
    def significant(self) -> bool:
        """Whether it is not chance: McNemar's exact test, or whether the interval leaves out zero."""
        if self.everything:
            return True
        if self.test is not None:
            return self.test.significant
        low, high = self.interval
        return low > 0 or high < 0

    @property
    def worse(self) -> bool:
        """Whether the outputs are worse by more than chance."""
        return self.significant and not self.drop <= 0

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


def measure_losses(outputs: Arrays, eager: Arrays, data: Split, metrics: Sequence[Metric]) -> tuple[Loss, ...]:
    """What each metric lost on a split for which both outputs are."""
    return tuple(
        loss_of_scores(
            kept_scores(metric, outputs, eager, data),
            kept_scores(metric, eager, eager, data),
            metric=metric.name,
            unit=metric.unit,
            higher_is_better=metric.higher_is_better,
        )
        for metric in metrics
    )


def kept_scores(metric: Metric, outputs: Arrays, eager: Arrays, data: Split) -> NDArray[np.float64]:
    """Scores [examples] of outputs, NaN where an example does not count or its outputs are not finite but eager's are.

    Among NaNs, too, one is the largest, but that is not an answer.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        scores = example_scores(metric, outputs, data).copy()
    scores[_lost_examples(outputs, eager)] = np.nan
    return scores.ravel()


def _lost_examples(outputs: Arrays, eager: Arrays) -> NDArray[np.bool_]:
    """Which examples have a value that is not finite where eager's is."""
    lost = [np.isfinite(wanted) & ~np.isfinite(outputs[name]) for name, wanted in eager.items()]
    return np.any([one.reshape(len(one), -1).any(1) for one in lost], axis=0)


def loss_of_scores(
    found: NDArray[np.float64], eager: NDArray[np.float64], *, metric: str, unit: str, higher_is_better: bool
) -> Loss:
    """What scores [examples] lost in the mean against eager's, or an earlier run's, of the same examples.

    Raises:
        ValueError: different shapes, or no example has two scores.
    """
    before = float(np.nanmean(eager))
    if (np.isnan(found) & ~np.isnan(eager)).any():
        counted = int(np.count_nonzero(~np.isnan(eager)))
        return Loss(metric, unit, before, np.nan, np.inf, (np.inf, np.inf), counted, None)
    difference = paired_difference(*((eager, found) if higher_is_better else (found, eager)))
    pairs = [scores[~np.isnan(eager)] for scores in (found, eager)]
    test = mcnemar(*pairs) if all(map(are_hits, pairs)) else None
    value = float(np.nanmean(found))
    return Loss(metric, unit, before, value, difference.mean, difference.interval, difference.pairs, test)
