"""What a candidate's outputs are worth beside eager's: each metric, and what it lost on the same examples."""

from __future__ import annotations

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.metrics import Metric, format_value, has_classes, summarise
from perceiver_deploy.data.split import Split
from perceiver_deploy.evaluate.accuracy.losses import kept_scores, loss_of_scores
from perceiver_deploy.evaluate.parity.verdicts import compare, finite_or_none
from perceiver_deploy.strict import Strict

NO_VALUE = "not finite"


class MetricFigures(Strict):
    """A task metric on the test split.

    In the unit "%" all figures are shares of 1. `drop` is what the mean lost against eager's on the same examples,
    positive where the outputs are worse, with its 95 % interval; None where outputs have no score that eager's have,
    and so have lost everything: then `value` and `interval` are None too. `significant` says that it is not chance:
    McNemar's exact test where each example is right or wrong, otherwise whether the interval leaves out zero. `scores`
    has one entry an example, None where it does not count or its outputs are not finite.
    """

    metric: str
    unit: str
    higher_is_better: bool
    value: float | None
    interval: tuple[float, float] | None
    examples: int
    drop: float | None
    drop_interval: tuple[float, float] | None
    significant: bool
    scores: tuple[float | None, ...]

    @property
    def worse(self) -> bool:
        """Whether more was lost than chance explains."""
        return self.significant and (self.drop is None or self.drop > 0)

    def value_text(self) -> str:
        """`97.33 %`."""
        return NO_VALUE if self.value is None else format_value(self.value, self.unit)

    def interval_text(self) -> str:
        """`95.10 % to 98.75 %`."""
        return "" if self.interval is None else " to ".join(format_value(bound, self.unit) for bound in self.interval)

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
    first = next(iter(eager))
    compared = compare(outputs[first], eager[first])
    return AccuracyFigures(
        metrics=tuple(_metric_figures(metric, outputs, eager, data.test) for metric in data.metrics),
        agreement=compared.top1 if has_classes(first) else None,
        relative_l2=finite_or_none(compared.relative_l2),
    )


def _metric_figures(metric: Metric, outputs: Arrays, eager: Arrays, data: Split) -> MetricFigures:
    found, wanted = (kept_scores(metric, each, eager, data) for each in (outputs, eager))
    name, unit, higher = metric.name, metric.unit, metric.higher_is_better
    loss = loss_of_scores(found, wanted, metric=name, unit=unit, higher_is_better=higher)
    measured = None if loss.everything else summarise(metric, found)
    return MetricFigures(
        metric=name,
        unit=unit,
        higher_is_better=higher,
        value=None if measured is None else measured.value,
        interval=None if measured is None else measured.interval,
        examples=loss.examples if measured is None else measured.examples,
        drop=None if loss.everything else loss.drop,
        drop_interval=None if loss.everything else loss.interval,
        significant=loss.significant,
        scores=tuple(map(finite_or_none, found.tolist())),
    )
