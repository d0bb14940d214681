"""Task metrics, in NumPy, and how sure they are: the mean of one score an example, with a 95 % interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.split import Split
from perceiver_deploy.statistics import bootstrap_interval, wilson_interval

Run = Callable[[Arrays], Arrays]
"""Inputs by name to outputs by name: a session's `run`, or a baseline that is not a neural network."""

_BATCH = 32


@dataclass(frozen=True)
class Metric:
    """A figure of merit.

    `scores` takes outputs, inputs and targets of a split and gives one score an example, NaN where the example does
    not count. In the unit "%" scores are shares of 1.
    """

    name: str
    unit: str
    higher_is_better: bool
    scores: Callable[[Arrays, Arrays, NDArray[Any]], NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Measured:
    """A metric's mean over the examples that count, and its 95 % confidence interval."""

    metric: str
    unit: str
    higher_is_better: bool
    value: float
    interval: tuple[float, float]
    examples: int

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)

    def text(self, value: float | None = None) -> str:
        """The value, or another one of this metric, with its unit."""
        return format_value(self.value if value is None else value, self.unit)


def format_value(value: float, unit: str) -> str:
    """`97.33 %` for the share 0.9733, `1.250 px` else."""
    return f"{100 * value:.2f} %" if unit == "%" else f"{value:.3f} {unit}"


def collect_outputs(run: Run, data: Split, rows: int = _BATCH) -> Arrays:
    """Outputs for all examples of a split, computed in batches of `rows`."""
    parts = [run(data.rows(slice(start, start + rows))) for start in range(0, len(data), rows)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def measure(outputs: Arrays, data: Split, metrics: Sequence[Metric]) -> tuple[Measured, ...]:
    """The metrics of a split's outputs."""
    return tuple(summarise(metric, example_scores(metric, outputs, data)) for metric in metrics)


def has_classes(output: str) -> bool:
    """Whether an output of this name is class scores, whose largest entry is an answer."""
    return output.endswith("logits")


def example_scores(metric: Metric, outputs: Arrays, data: Split) -> NDArray[np.float64]:
    """One score an example [examples] for a split's outputs, NaN where it does not count."""
    return np.asarray(metric.scores(outputs, data.rows(slice(None)), data.targets), np.float64)


def are_hits(scores: NDArray[np.float64]) -> bool:
    """Whether each score says right or wrong: 1 or 0."""
    return bool(np.isin(scores, (0, 1)).all())


def summarise(metric: Metric, scores: NDArray[np.float64]) -> Measured:
    """The mean of a metric's scores, of those that are not NaN, and its interval."""
    scores = scores[~np.isnan(scores)]
    value = float(scores.mean())
    interval = wilson_interval(value, len(scores)) if are_hits(scores) else bootstrap_interval(scores)
    return Measured(metric.name, metric.unit, metric.higher_is_better, value, interval, len(scores))


def _top1(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
    return (outputs["logits"].argmax(-1) == targets).astype(np.float64)


TOP1 = Metric("top-1 accuracy", "%", True, _top1)
"""Share of examples whose largest logit is the target."""
