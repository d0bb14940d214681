"""What to use, in one sentence: which runtime, variant and threads, why, and how to get it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.evaluate.accuracy.figures import MetricFigures
from perceiver_deploy.evaluate.report.benchmark_document import (
    BenchmarkReport,
    CaseRanking,
    Latency,
    Measurement,
    sizes_text,
)
from perceiver_deploy.evaluate.report.suite_document import SuiteReport, TaskLines, VariantLine
from perceiver_deploy.evaluate.speed.ranking import rank
from perceiver_deploy.runtimes.catalogue import EAGER
from perceiver_deploy.runtimes.settings import way_text


def recommend(report: BenchmarkReport) -> tuple[str, ...]:
    """One sentence a bundle, on the first batch size at the first sizes, with what differs at the others."""
    found = []
    for bundle in dict.fromkeys(m.bundle for m in report.measurements):
        choices = [_choose(report, ranking) for ranking in report.rankings if ranking.bundle == bundle]
        if choices:
            found.append(_sentence(report, choices))
    return tuple(found)


@dataclass(frozen=True)
class _Choice:
    """The fastest at some sizes of those that keep accuracy, or the simplest of those tied with it."""

    ranking: CaseRanking
    chosen: Measurement
    latency: Latency
    tied: tuple[str, ...]
    noisy: bool
    losers: tuple[str, ...]

    def where(self) -> str:
        """`batch 1, length 8`."""
        sizes = self.ranking.sizes
        return f"batch {self.ranking.batch}" + (f", {sizes_text(sizes)}" if sizes else "")


def _choose(report: BenchmarkReport, ranking: CaseRanking) -> _Choice:
    """Rank again without those that lose accuracy, on the samples of the same rounds."""
    timed = [
        (m, one)
        for m in report.measurements
        if m.bundle == ranking.bundle
        for one in m.latencies
        if (one.batch, one.sizes) == (ranking.batch, ranking.sizes)
    ]
    keeping = [(m, one) for m, one in timed if not _worst_losses(m)] or timed[:1]  # eager loses nothing
    ranked = rank([one.samples for _, one in keeping])
    chosen, latency = keeping[ranked.chosen]
    return _Choice(
        ranking=ranking,
        chosen=chosen,
        latency=latency,
        tied=tuple(keeping[index][0].name for index in ranked.tied[1:]),
        noisy=ranked.noisy,
        losers=tuple(
            f"{m.name}, which loses {_lost_text(_worst_losses(m))}"
            for m, one in timed
            if _worst_losses(m) and one.p50 < latency.p50
        ),
    )


def _worst_losses(measurement: Measurement) -> list[MetricFigures]:
    """The metrics that fall by more than chance."""
    return [] if measurement.accuracy is None else [one for one in measurement.accuracy.metrics if one.worse]


def _lost_text(metrics: Sequence[MetricFigures]) -> str:
    return " and ".join(f"{metric.drop_text().partition(' (')[0]} of {metric.metric}" for metric in metrics)


def _sentence(report: BenchmarkReport, choices: Sequence[_Choice]) -> str:
    first, *others = choices
    settings, bundle, m = report.settings, first.ranking.bundle, first.chosen
    if settings.threads is None:
        threads = f"with the runtime's own number of threads (perceiver-deploy tune {bundle} measures others)"
    else:
        threads = f"with {_count(settings.threads, 'thread')}"
    low, high = first.latency.speed_up_interval
    parts = [
        f"Recommended for {Path(bundle).name} at {first.where()}: {m.name} {threads}",
        f"{first.latency.speed_up:.2f} ({low:.2f} to {high:.2f}) times as fast as eager, "
        f"{1000 * first.latency.p50:.2f} ms",
        "accuracy was not measured (give --data)"
        if m.accuracy is None
        else f"without a loss of accuracy on {settings.data} beyond chance",
    ]
    if first.tied:
        noise = " on a machine that was too noisy to rank" if first.noisy else ""
        parts.append(f"statistically tied with {_listed(first.tied)}{noise} and the simplest")
    if first.losers:
        parts.append(f"slower than {_listed(first.losers)}")
    differing = [f"{one.chosen.name} at {one.where()}" for one in others if one.chosen.name != m.name]
    instead = f" (but {_listed(differing)})" if differing else ""
    return f"{', '.join(parts)}{instead}; get it with {load_call(bundle, m.runtime, m.variant, settings.threads)}."


def recommend_suite(report: SuiteReport) -> str | None:
    """One sentence on all tasks, or None where none was measured."""
    if not report.tasks:
        return None
    names: dict[str, list[str]] = {}
    for task in report.tasks:
        line = _best_line(task)
        names.setdefault(way_text(line.runtime, line.variant), []).append(task.name)
    all_tasks = len(report.tasks) > 1 and len(names) == 1
    texts = [f"{name} for {'all tasks' if all_tasks else ', '.join(found)}" for name, found in names.items()]
    threads = report.environment["threads"]
    number = _count(threads, "thread") if isinstance(threads, int) else "the runtime's own number of threads"
    return (
        f"Recommended with {number}: {'; '.join(texts)}: each the fastest that loses no accuracy beyond chance, or the "
        'simplest of those statistically tied; get it with load("NAME/NAME.bundle", runtime=..., variant=...), or with '
        "perceiver-deploy tune, which measures numbers of threads too."
    )


def _best_line(task: TaskLines) -> VariantLine:
    """The first whose speed-up may be the best one's, of those that keep every metric; eager where none does."""
    lines = [task.eager, *(line for line in task.variants if not any(metric.worse for metric in line.metrics))]
    best = max(lines, key=lambda line: line.speed_up)
    return next(line for line in lines if line.speed_up_interval[1] >= best.speed_up_interval[0])


def load_call(bundle: str, runtime: str, variant: str, threads: int | None) -> str:
    """`load("digits.bundle", runtime="onnxruntime", variant="int8", threads=2)`."""
    settings = "" if threads is None else f", threads={threads}"
    named = "" if runtime == EAGER else f', variant="{variant}"'
    return f'load("{bundle}", runtime="{runtime}"{named}{settings})'


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(texts: Sequence[str]) -> str:
    return " and ".join(texts)
