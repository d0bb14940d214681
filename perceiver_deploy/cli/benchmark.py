"""`perceiver-deploy benchmark`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import AxisSize, threads_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.evaluate.report.benchmark_document import BenchmarkReport
    from perceiver_deploy.evaluate.report.page import Page


def _combine(_: click.Context, __: click.Parameter, given: tuple[tuple[str, int], ...]) -> list[dict[str, int]]:
    """Every combination of the sizes given for each axis."""
    by_axis: dict[str, list[tuple[str, int]]] = {}
    for axis, size in given:
        by_axis.setdefault(axis, []).append((axis, size))
    return [dict(sizes) for sizes in itertools.product(*by_axis.values())] if by_axis else []


@click.command(
    "benchmark",
    cls=Verb,
    short_help="Measure accuracy and speed against eager.",
    extra="export,cpu,report",
    example="perceiver-deploy benchmark digits.bundle --data digits",
)
@click.argument("bundles", nargs=-1, type=click.Path(path_type=Path), metavar="BUNDLE...")
@click.option("--data", help="Data set to measure accuracy on, such as digits; without it, inputs are random.")
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(min=1),
    help="Batch size to time; may be repeated. Default: 1 and 32.",
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    type=AxisSize(),
    metavar="AXIS=N",
    callback=_combine,
    help="Axis size to time, on random inputs; may be repeated, also for the same axis.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=6.0,
    show_default=True,
    help="Time budget in seconds for each combination of batch size and axis sizes.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Report folder; default: BUNDLE/reports.")
@click.option("--layers", is_flag=True, help="Report time and accuracy loss per layer.")
@click.option("--scenarios", is_flag=True, help="Also measure MLPerf's scenarios (needs the extra loadgen).")
@click.option(
    "--latency-bound",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Server scenario: latency that 99 % of queries must stay within; default: ten times the SingleStream median.",
)
@click.option("--png", is_flag=True, help="Also write each plot as a PNG file.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="RESULT.json",
    help="benchmark.json (or modalities.json) of an earlier run to compare with; exit code 4 if accuracy, speed-up, "
    "memory or size got worse beyond the noise.",
)
@click.option(
    "--suite",
    type=click.Choice(["modalities"]),
    help="Instead of BUNDLE: export, convert and measure every shipped task on its test set, in one table. An "
    "interrupted run is resumed. Default: --batch 1 -o modalities.",
)
@threads_option
def command(
    bundles: tuple[Path, ...],
    data: str | None,
    batches: tuple[int, ...],
    sizes: list[dict[str, int]],
    seconds: float,
    output: Path | None,
    *,
    layers: bool,
    scenarios: bool,
    latency_bound: float | None,
    png: bool,
    against: Path | None,
    suite: str | None,
    threads: int | None,
) -> Outcome:
    """Measure accuracy and speed of every variant of BUNDLE in every runtime, compared with eager.

    Each candidate runs in its own process. Calls are interleaved, so that all candidates see the same machine load.
    """
    if suite is not None:
        if bundles or data is not None or sizes or layers or scenarios:
            raise click.UsageError(
                f"--suite {suite} brings its bundles and data; leave BUNDLE, --data, --size, --layers and --scenarios "
                "out."
            )
        return _run_suite(output or Path(suite), batches or (1,), seconds, threads, against, png=png)
    if latency_bound is not None and not scenarios:
        raise click.UsageError("--latency-bound is of the scenario Server; give --scenarios too.")
    if not bundles:
        raise click.UsageError("Give a BUNDLE, or --suite modalities.")
    from perceiver_deploy.pipeline.benchmark.benchmark import BATCHES, benchmark_bundles

    result = benchmark_bundles(
        bundles,
        data=data,
        batches=batches or BATCHES,
        sizes=sizes,
        seconds=seconds,
        threads=threads,
        output=output,
        against=against,
        layers=layers,
        scenarios=scenarios,
        latency_bound=latency_bound,
        png=png,
    )

    def show(console: Console) -> None:
        show_report(console, result.report, result.files)

    return Outcome(result.to_json(), show, result.failure)


def _run_suite(
    output: Path, batches: tuple[int, ...], seconds: float, threads: int | None, against: Path | None, *, png: bool
) -> Outcome:
    from perceiver_deploy.evaluate.report.suite_page import page_of_suite
    from perceiver_deploy.evaluate.report.terminal import suite_tables
    from perceiver_deploy.pipeline.benchmark.suite import run_suite

    result = run_suite(output, batches=batches, seconds=seconds, threads=threads, against=against, png=png)

    def show(console: Console) -> None:
        page = replace(page_of_suite(result.report), tables=tuple(suite_tables(result.report)))
        show_page(console, page, f"Reports: {', '.join(result.files)}; each task's own are in folders beside them")

    return Outcome(result.to_json(), show, result.failure)


def show_report(console: Console, report: BenchmarkReport, files: Sequence[str] = ()) -> None:
    """Print the tables and conclusions of a benchmark, and where they are written."""
    from perceiver_deploy.evaluate.report.benchmark_page import page_of_benchmark
    from perceiver_deploy.evaluate.report.terminal import benchmark_tables

    page = replace(page_of_benchmark(report), tables=tuple(benchmark_tables(report)))
    show_page(console, page, *([f"Reports: {', '.join(files)}"] if files else []))


def show_page(console: Console, page: Page, *places: str) -> None:
    """Print tables, conclusions, where they are written, and the recommendation."""
    from perceiver_deploy.cli.tables import make_table

    for table in page.tables:
        console.print(make_table(table.title, table.header, table.rows))
    for sentence in (*page.summary, *places, *page.recommendation):
        console.print(sentence)
