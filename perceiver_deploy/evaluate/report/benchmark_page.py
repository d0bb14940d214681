"""The report of a benchmark for people: who is fastest, what it costs, and every figure in tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perceiver_deploy.evaluate.report.benchmark_document import (
    BenchmarkReport,
    Comparison,
    Latency,
    LayerTimes,
    sizes_text,
)
from perceiver_deploy.evaluate.report.page import Page, Table, environment_table
from perceiver_deploy.evaluate.report.plots import candidate_name
from perceiver_deploy.evaluate.report.recommendation import recommend
from perceiver_deploy.evaluate.report.scaling import scaling_tables

_HOW = (
    "All candidates ran in turn, one call each, in processes of their own. Speed-up is eager's time over the "
    "candidate's in the same round: the median, with its 95 % interval."
)


def page_of_benchmark(report: BenchmarkReport) -> Page:
    """Sentences and tables of a report."""
    return Page(
        title="Benchmark of " + ", ".join(dict.fromkeys(m.bundle.rsplit("/", 1)[-1] for m in report.measurements)),
        summary=tuple(_summary(report)),
        tables=tuple(_tables(report)),
        command=report.command,
        recommendation=recommend(report),
    )


def _summary(report: BenchmarkReport) -> Iterator[str]:
    for ranking in report.rankings:
        yield ranking.text()
    losers = [
        f"{candidate_name(report, m)} loses {metric.drop_text()} of {metric.metric}"
        for m in report.measurements
        if m.accuracy is not None
        for metric in m.accuracy.metrics
        if metric.worse
    ]
    if losers:
        yield f"Accuracy falls by more than chance: {'; '.join(losers)}."
    elif report.settings.data is not None:
        yield f"No candidate loses accuracy on {report.settings.data} by more than chance."
    unsettled = [candidate_name(report, m) for m in report.measurements if not all(one.stable for one in m.latencies)]
    if unsettled:
        yield f"Still getting faster when timing began: {', '.join(unsettled)}. Measure for longer with --seconds."
    for one in report.left_out:
        yield one.text()
    if report.comparison is not None:
        yield f"Beside the earlier run: {report.comparison.text()}"
    yield _HOW


def _tables(report: BenchmarkReport) -> Iterator[Table]:
    yield from comparison_tables(report.comparison)
    if report.measurements[0].accuracy is not None:
        yield _accuracy_table(report)
    yield _speed_table(report)
    yield from detail_tables(report)
    yield environment_table(report.environment)


def detail_tables(report: BenchmarkReport) -> Iterator[Table]:
    """Growth with sizes, scenarios and layers where these were measured; start and size."""
    yield from scaling_tables(report)
    if report.measurements[0].scenarios:
        yield _scenario_table(report)
    yield from map(layer_table, report.layer_times)
    yield Table(
        "Start and size",
        ("candidate", "load s", "first run ms", "MB on disk"),
        tuple(
            (
                candidate_name(report, m),
                f"{m.load_seconds:.2f}",
                f"{1000 * m.first_seconds:.1f}",
                f"{m.file_bytes / 1e6:.2f}",
            )
            for m in report.measurements
        ),
    )


def _scenario_table(report: BenchmarkReport) -> Table:
    """What MLPerf's rules look at in each scenario."""
    rows = []
    for measurement in report.measurements:
        single, multi, offline, server = measurement.scenarios
        assert single.p90 is not None
        assert multi.p99 is not None
        assert server.bound is not None
        within = f"{server.per_second:.1f}" if server.kept else "never"
        rows.append(
            (
                candidate_name(report, measurement),
                f"{1000 * single.p90:.2f}",
                f"{1000 * multi.p99:.2f}",
                f"{offline.per_second:.1f}",
                f"{within} ({1000 * server.bound:.2f})",
            )
        )
    header = (
        "candidate",
        "SingleStream p90 ms",
        "MultiStream p99 ms",
        "Offline samples/s",
        "Server queries/s within a p99 of (ms)",
    )
    return Table("MLPerf's scenarios, by LoadGen", header, tuple(rows))


def layer_table(times: LayerTimes) -> Table:
    """Milliseconds of each layer in each candidate, their sum, and a run without a profiler, which takes time."""
    rows = [(name, *(_milliseconds(c.layers.get(name)) for c in times.candidates)) for name in times.names()]
    rows.append(("all layers", *(_milliseconds(sum(c.layers.values())) for c in times.candidates)))
    rows.append(("a run without profiling", *(_milliseconds(c.whole) for c in times.candidates)))
    return Table(
        f"Milliseconds of each layer of {Path(times.bundle).name} at {sizes_text(times.sizes)}",
        ("layer", *(c.candidate for c in times.candidates)),
        tuple(rows),
    )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.3f}"


def comparison_tables(comparison: Comparison | None) -> Iterator[Table]:
    """Every figure beside that of the earlier run, if there was one."""
    if comparison is None:
        return
    rows = tuple((d.candidate, d.figure, d.before, d.now, str(d.verdict)) for d in comparison.differences)
    yield Table("Beside the earlier run", ("candidate", "figure", "before", "now", "verdict"), rows)
    if comparison.remarks:
        yield Table("What is different", ("what",), tuple((remark,) for remark in comparison.remarks))


def _accuracy_table(report: BenchmarkReport) -> Table:
    return Table(
        f"Accuracy on {report.settings.data} (test split)",
        ("candidate", "metric", "value", "95 % interval", "lost against eager", "examples", "same as eager"),
        tuple(
            (
                candidate_name(report, m),
                metric.metric,
                metric.value_text(),
                metric.interval_text(),
                metric.drop_text(),
                str(metric.examples),
                "" if m.accuracy.agreement is None else f"{100 * m.accuracy.agreement:.2f} %",
            )
            for m in report.measurements
            if m.accuracy is not None
            for metric in m.accuracy.metrics
        ),
    )


def peak_text(latency: Latency) -> str:
    """`150`, or with a GPU's memory `150, GPU 900`: megabytes."""
    device = f", GPU {latency.device_bytes / 1e6:.0f}" if latency.device_bytes else ""
    return f"{latency.peak_bytes / 1e6:.0f}{device}"


def _speed_table(report: BenchmarkReport) -> Table:
    return Table(
        f"Speed; threads: {report.environment['threads']}",
        (
            *("candidate", "batch", "sizes", "p50 ms", "p90 ms", "p99 ms", "per second"),
            *("speed-up", "95 % interval", "peak MB", "relative L2 to eager", "runs"),
        ),
        tuple(
            (
                candidate_name(report, m),
                str(one.batch),
                one.sizes_text(),
                *(f"{1000 * seconds:.2f}" for seconds in (one.p50, one.p90, one.p99)),
                f"{one.throughput:.1f}",
                f"{one.speed_up:.2f}",
                " to ".join(f"{bound:.2f}" for bound in one.speed_up_interval),
                peak_text(one),
                "not finite" if one.relative_l2 is None else f"{one.relative_l2:.1e}",
                str(len(one.samples)),
            )
            for m in report.measurements
            for one in m.latencies
        ),
    )
