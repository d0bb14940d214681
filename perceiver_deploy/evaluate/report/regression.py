"""Is a benchmark worse than an earlier one, beyond what chance explains?

Speed is judged by the speed-up over eager, which was called in the same rounds: a machine that is slower today, or
another one, slows both. Where only the usual run is slower and the fastest one is not, others were using the machine.
Accuracy is judged example by example on the same test set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_deploy.errors import InputError
from perceiver_deploy.evaluate.accuracy.figures import MetricFigures
from perceiver_deploy.evaluate.accuracy.losses import loss_of_scores
from perceiver_deploy.evaluate.report.benchmark_document import (
    BenchmarkReport,
    Comparison,
    Difference,
    Latency,
    Measurement,
    Trend,
)
from perceiver_deploy.evaluate.speed.ranking import TOO_WIDE
from perceiver_deploy.runtimes.catalogue import EAGER

MARGIN = 1.1
"""How many times slower, or larger in memory, a candidate must be beyond the intervals: runs of the same code differ by
more than the rounds of one run do, because each starts new processes."""
_SIZE_MARGIN = 1.01
_Key = tuple[str, str]


def compare_reports(before: BenchmarkReport, now: BenchmarkReport) -> Comparison:
    """Everything that both reports measured, and the candidates that only the earlier one has.

    Raises:
        InputError: they have nothing in common.
    """
    old, new = (_by_name(report) for report in (before, now))
    common = [key for key in old if key in new]
    if not common:
        raise InputError(
            f"The reports have no candidate of the same bundle in common: {_names(old)} against {_names(new)}. "
            "Give the benchmark.json of the same bundles."
        )
    gone = [
        Difference(candidate=" ".join(key), figure="candidate", before="measured", now="not measured", verdict="worse")
        for key in old
        if key not in new
    ]
    compared = [difference for key in common for difference in _compare(key, (old, new))]
    return Comparison(differences=(*gone, *compared), remarks=tuple(_remarks(before, now)))


def compare_suites(before: Mapping[str, BenchmarkReport], now: Mapping[str, BenchmarkReport]) -> Comparison:
    """The reports of every task that both runs of a suite measured; what one of them lacks is a remark."""
    found = [compare_reports(before[name], now[name]) for name in now if name in before]
    alone = [f"{name} was not measured before" for name in now if name not in before]
    alone += [f"{name} was measured before and is not now" for name in before if name not in now]
    return Comparison(
        differences=tuple(difference for one in found for difference in one.differences),
        remarks=(*dict.fromkeys(remark for one in found for remark in one.remarks), *alone),
    )


def _by_name(report: BenchmarkReport) -> dict[_Key, Measurement]:
    return {(Path(m.bundle).name, m.name): m for m in report.measurements}


def _names(measurements: dict[_Key, Measurement]) -> str:
    return ", ".join(" ".join(key) for key in measurements)


def _compare(key: _Key, reports: tuple[dict[_Key, Measurement], dict[_Key, Measurement]]) -> Iterator[Difference]:
    name = " ".join(key)
    old, new = (report[key] for report in reports)
    if old.accuracy is not None and new.accuracy is not None:
        known = {metric.metric: metric for metric in old.accuracy.metrics}
        for metric in new.accuracy.metrics:
            if metric.metric in known and len(metric.scores) == len(known[metric.metric].scores):
                yield _accuracy(name, known[metric.metric], metric)
    if new.file_bytes > _SIZE_MARGIN * old.file_bytes:
        sizes = (f"{count / 1e6:.2f} MB" for count in (old.file_bytes, new.file_bytes))
        yield _difference(name, "size on disk", *sizes, worse=True)
    eager = [_by_case(next(m for (bundle, _), m in report.items() if bundle == key[0])) for report in reports]
    earlier = _by_case(old)
    for case, latency in _by_case(new).items():
        if case not in earlier:
            continue
        where = f"batch {latency.batch}" + (f", {latency.sizes_text()}" if latency.sizes else "")
        if new.runtime != EAGER:  # eager is what speed is measured by
            best = [
                min(first[case].samples) / min(own.samples)
                for first, own in zip(eager, (earlier[case], latency), strict=True)
            ]
            yield _speed(name, f"speed-up at {where}", earlier[case], latency, best[1] * MARGIN < best[0])
        if latency.peak_bytes > MARGIN * earlier[case].peak_bytes:
            memory = (f"{count / 1e6:.0f} MB" for count in (earlier[case].peak_bytes, latency.peak_bytes))
            yield _difference(name, f"peak memory at {where}", *memory, worse=True)


def _by_case(measurement: Measurement) -> dict[tuple[Any, ...], Latency]:
    return {(latency.batch, *sorted(latency.sizes.items())): latency for latency in measurement.latencies}


def _difference(name: str, figure: str, before: str, now: str, *, worse: bool) -> Difference:
    return Difference(candidate=name, figure=figure, before=before, now=now, verdict="worse" if worse else "same")


def _accuracy(name: str, old: MetricFigures, new: MetricFigures) -> Difference:
    if old.value is None:  # nothing is left to lose
        verdict: Trend = "same" if new.value is None else "better"
    elif new.value is None:
        verdict = "worse"
    else:
        found, before = (
            np.array([np.nan if score is None else score for score in metric.scores]) for metric in (new, old)
        )
        loss = loss_of_scores(found, before, metric=new.metric, unit=new.unit, higher_is_better=new.higher_is_better)
        verdict = "worse" if loss.worse else "same"
    return Difference(candidate=name, figure=new.metric, before=old.value_text(), now=new.value_text(), verdict=verdict)


def _speed(name: str, figure: str, old: Latency, new: Latency, best_is_worse: bool) -> Difference:
    (low, high), (new_low, new_high) = old.speed_up_interval, new.speed_up_interval
    verdict: Trend = "same"
    if new_high * MARGIN < low:
        verdict = "worse" if best_is_worse else "too noisy"
    elif new_low > high * MARGIN:
        verdict = "better"
    elif max(high / low, new_high / new_low) > TOO_WIDE:
        verdict = "too noisy"
    before, now = (f"{one.speed_up:.2f}x ({1000 * one.p50:.2f} ms)" for one in (old, new))
    return Difference(candidate=name, figure=figure, before=before, now=now, verdict=verdict)


def _remarks(before: BenchmarkReport, now: BenchmarkReport) -> Iterator[str]:
    """Where the environments differ, which may explain a difference."""
    flat = [{**report.environment, **report.environment.get("packages", {})} for report in (before, now)]
    for name in dict.fromkeys([*flat[0], *flat[1]]):
        if name != "packages" and flat[0].get(name) != flat[1].get(name):
            yield f"{name} was {flat[0].get(name, 'absent')} and is {flat[1].get(name, 'absent')}"
