"""Tables of reports for a terminal, which has 100 columns: one line a candidate, its sizes and metric in the title."""

from __future__ import annotations

from collections.abc import Iterator

from perceiver_deploy.evaluate.report.benchmark_document import BenchmarkReport, Latency
from perceiver_deploy.evaluate.report.benchmark_page import comparison_tables, detail_tables, peak_text
from perceiver_deploy.evaluate.report.page import Table
from perceiver_deploy.evaluate.report.plots import candidate_name
from perceiver_deploy.evaluate.report.suite_document import SuiteReport, VariantLine
from perceiver_deploy.runtimes.catalogue import EAGER
from perceiver_deploy.runtimes.settings import way_text


def benchmark_tables(report: BenchmarkReport) -> Iterator[Table]:
    """What `benchmark_page` has, but for p90, the number of runs and the environment."""
    yield from comparison_tables(report.comparison)
    yield from _accuracy_tables(report)
    yield from _speed_tables(report)
    yield from detail_tables(report)


def _accuracy_tables(report: BenchmarkReport) -> Iterator[Table]:
    eager = report.measurements[0].accuracy
    for name in [] if eager is None else [metric.metric for metric in eager.metrics]:
        found = [
            (m, m.accuracy, metric)
            for m in report.measurements
            if m.accuracy is not None
            for metric in m.accuracy.metrics
            if metric.metric == name
        ]
        rows = (
            (
                candidate_name(report, m),
                metric.value_text(),
                metric.interval_text(),
                metric.drop_text(),
                "" if accuracy.agreement is None else f"{100 * accuracy.agreement:.2f} %",
            )
            for m, accuracy, metric in found
        )
        yield Table(
            f"{name} on {report.settings.data} (test split), {found[0][2].examples} examples",
            ("candidate", "value", "95 % interval", "lost against eager", "same as eager"),
            tuple(rows),
        )


def _speed_tables(report: BenchmarkReport) -> Iterator[Table]:
    cases = {(one.batch, *one.sizes.items()): one for m in report.measurements for one in m.latencies}
    for case in cases.values():
        where = f"batch {case.batch}" + (f", {case.sizes_text()}" if case.sizes else "")
        rows = (
            _speed_row(candidate_name(report, m), one)
            for m in report.measurements
            for one in m.latencies
            if (one.batch, one.sizes) == (case.batch, case.sizes)
        )
        header = ("candidate", "p50 ms", "p99 ms", "per s", "x eager", "95 %", "peak MB", "rel. L2")
        yield Table(f"Speed at {where}; threads: {report.environment['threads']}", header, tuple(rows))


def _speed_row(name: str, one: Latency) -> tuple[str, ...]:
    return (
        name,
        f"{1000 * one.p50:.2f}",
        f"{1000 * one.p99:.2f}",
        f"{one.throughput:.1f}",
        f"{one.speed_up:.2f}",
        "{:.2f} to {:.2f}".format(*one.speed_up_interval),
        peak_text(one),
        "not finite" if one.relative_l2 is None else f"{one.relative_l2:.1e}",
    )


def suite_tables(report: SuiteReport) -> Iterator[Table]:
    """Every task's candidates under each other, and the figures beside the earlier run."""
    rows = []
    for task in report.tasks:
        lines = [row for line in (task.eager, *task.variants) for row in _lines(line)]
        rows += [("" if index else task.name, *row) for index, row in enumerate(lines)]
    yield Table(
        f"Every task at batch {report.batch}; threads: {report.environment['threads']}",
        ("data", "candidate", "metric", "value", "lost", "x eager", "MB"),
        tuple(rows),
    )
    yield from comparison_tables(report.comparison)


def _lines(line: VariantLine) -> Iterator[tuple[str, ...]]:
    """One line a metric, the first with speed and size."""
    is_eager, candidate = line.runtime == EAGER, way_text(line.runtime, line.variant)
    speed = (f"{line.speed_up:.2f}", f"{line.file_bytes / 1e6:.2f}")
    for metric in line.metrics:
        lost = "" if is_eager else metric.drop_text().partition(" (")[0]
        yield candidate, metric.metric if is_eager else "", metric.value_text(), lost, *speed
        candidate, speed = "", ("", "")
