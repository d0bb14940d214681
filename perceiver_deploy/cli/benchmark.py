"""`perceiver-deploy benchmark`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import threads_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from perceiver_deploy.evaluate.benchmark_report import BenchmarkReport


def _parse_sizes(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> list[dict[str, int]]:
    """Every combination of the sizes given for each axis."""
    by_axis: dict[str, list[tuple[str, int]]] = {}
    for text in texts:
        axis, _, size = text.partition("=")
        if not (size.isascii() and size.isdigit()):
            raise click.BadParameter(f"{text!r} is not of the form AXIS=N, such as length=512.")
        by_axis.setdefault(axis, []).append((axis, int(size)))
    return [dict(sizes) for sizes in itertools.product(*by_axis.values())] if by_axis else []


@click.command(
    "benchmark",
    cls=Verb,
    short_help="Measure accuracy and speed against eager.",
    extra="export,cpu,report",
    example="perceiver-deploy benchmark digits.bundle --data digits",
)
@click.argument("bundles", nargs=-1, type=click.Path(path_type=Path), metavar="BUNDLE...")
@click.option("--data", help="Data set to measure accuracy on (digits); without it, inputs are random.")
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(min=1), help="May be repeated; default: 1 and 32."
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="AXIS=N",
    callback=_parse_sizes,
    help="Size of an axis to time, on random inputs; may be repeated, for one axis too.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=6.0,
    show_default=True,
    help="Time for each batch size at each of the sizes.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the reports; default: BUNDLE/reports.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="RESULT.json",
    help="benchmark.json of an earlier run; exit code 4 where accuracy, speed-up, memory or size is worse beyond the "
    "noise.",
)
@click.option(
    "--suite",
    type=click.Choice(["modalities"]),
    help="Instead of BUNDLE: export, convert and measure every shipped task on its test set, into one table; a run "
    "that was stopped goes on. Default: --batch 1 -o modalities.",
)
@threads_option
def command(
    bundles: tuple[Path, ...],
    data: str | None,
    batches: tuple[int, ...],
    sizes: list[dict[str, int]],
    seconds: float,
    output: Path | None,
    against: Path | None,
    suite: str | None,
    threads: int | None,
) -> Outcome:
    """Measure accuracy and speed of every variant and runtime of BUNDLE against eager.

    Each candidate runs in a process of its own; they are called in turn, so that all see the same machine.
    """
    if suite is not None:
        if bundles or data is not None or sizes or against is not None:
            raise click.UsageError(
                f"--suite {suite} brings its bundles and data; leave BUNDLE, --data, --size and --against out."
            )
        return _run_suite(output or Path(suite), batches or (1,), seconds, threads)
    if not bundles:
        raise click.UsageError("Give a BUNDLE, or --suite modalities.")
    from perceiver_deploy.pipeline.benchmark import BATCHES, benchmark_bundles

    result = benchmark_bundles(
        bundles,
        data=data,
        batches=batches or BATCHES,
        sizes=sizes,
        seconds=seconds,
        threads=threads,
        output=output,
        against=against,
    )

    def show(console: Console) -> None:
        show_report(console, result.report)
        console.print(f"Reports: {result.report_json} and {result.report_html}")

    return Outcome(result.to_json(), show, result.failure)


def _run_suite(output: Path, batches: tuple[int, ...], seconds: float, threads: int | None) -> Outcome:
    from perceiver_deploy.cli.tables import make_table
    from perceiver_deploy.evaluate.suite_report import suite_table
    from perceiver_deploy.pipeline.suite import run_suite

    result = run_suite(output, batches=batches, seconds=seconds, threads=threads)

    def show(console: Console) -> None:
        header, rows = suite_table(result.report)
        console.print(make_table(f"Every shipped task at batch {result.report.batch}", header, rows))
        console.print(f"Reports: {result.report_json} and {result.report_markdown}; each task's own beside them")

    return Outcome(result.to_json(), show, result.failure)


def show_report(console: Console, report: BenchmarkReport) -> None:
    """Accuracy, then speed at each of the sizes, then memory, size and times of starting; then what may be ranked."""
    from perceiver_deploy.cli.tables import make_table

    if report.measurements[0].accuracy is not None:
        headers = ("candidate", "metric", "value", "95 % interval", "drop", "same as eager")
        console.print(make_table(f"Accuracy on {report.settings.data} (test split)", headers, _accuracy_rows(report)))
    columns = ("candidate", "batch", "sizes", "p50 ms", "p90", "p99", "per s", "speed-up", "95 % interval", "peak MB")
    threads = report.environment["threads"]
    console.print(make_table(f"Speed; speed-up is over eager; threads: {threads}", columns, _speed_rows(report)))
    rows = [
        (m.name, f"{m.load_seconds:.2f}", f"{1000 * m.first_seconds:.1f}", f"{m.file_bytes / 1e6:.2f}")
        for m in report.measurements
    ]
    console.print(make_table("Start and size", ("candidate", "load s", "first run ms", "MB on disk"), rows))
    for ranking in report.rankings:
        console.print(ranking.text())
    if report.comparison is not None:
        differences = [[d.candidate, d.figure, d.before, d.now, d.verdict] for d in report.comparison.differences]
        console.print(make_table("Beside the earlier run", ("candidate", "figure", "before", "now", ""), differences))
        for line in (*report.comparison.remarks, report.comparison.text()):
            console.print(line)


def _accuracy_rows(report: BenchmarkReport) -> Sequence[Sequence[str]]:
    from perceiver_deploy.data.metrics import format_value

    return [
        (
            m.name,
            figures.metric,
            format_value(figures.value, figures.unit),
            " to ".join(format_value(bound, figures.unit) for bound in figures.interval),
            figures.drop_text(),
            "" if m.accuracy.agreement is None else f"{100 * m.accuracy.agreement:.2f} %",
        )
        for m in report.measurements
        if m.accuracy is not None
        for figures in m.accuracy.metrics
    ]


def _speed_rows(report: BenchmarkReport) -> Sequence[Sequence[str]]:
    return [
        (
            m.name,
            str(latency.batch),
            latency.sizes_text(),
            *(f"{1000 * seconds:.2f}" for seconds in (latency.p50, latency.p90, latency.p99)),
            f"{latency.throughput:.1f}",
            f"{latency.speed_up:.2f}x",
            " to ".join(f"{bound:.2f}" for bound in latency.speed_up_interval),
            f"{latency.peak_bytes / 1e6:.0f}",
        )
        for m in report.measurements
        for latency in m.latencies
    ]
