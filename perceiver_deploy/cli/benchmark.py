"""`perceiver-deploy benchmark`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import threads_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.evaluate.report.benchmark_document import BenchmarkReport
    from perceiver_deploy.evaluate.report.page import Page


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
@click.option("--layers", is_flag=True, help="Say where the time goes, by layer, and what each loses.")
@click.option("--scenarios", is_flag=True, help="Measure MLPerf's scenarios too (needs the extra loadgen).")
@click.option(
    "--latency-bound",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="What 99 % of the queries of the scenario Server may take; default: ten times the median of SingleStream.",
)
@click.option("--png", is_flag=True, help="Write each plot as a picture too.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="RESULT.json",
    help="benchmark.json (or modalities.json) of an earlier run; exit code 4 where accuracy, speed-up, memory or size "
    "is worse beyond the noise.",
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
    *,
    layers: bool,
    scenarios: bool,
    latency_bound: float | None,
    png: bool,
    against: Path | None,
    suite: str | None,
    threads: int | None,
) -> Outcome:
    """Measure accuracy and speed of every variant and runtime of BUNDLE against eager.

    Each candidate runs in a process of its own; they are called in turn, so that all see the same machine.
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
    from perceiver_deploy.evaluate.report.suite_page import suite_page
    from perceiver_deploy.evaluate.report.terminal import suite_tables
    from perceiver_deploy.pipeline.benchmark.suite import run_suite

    result = run_suite(output, batches=batches, seconds=seconds, threads=threads, against=against, png=png)

    def show(console: Console) -> None:
        page = replace(suite_page(result.report), tables=tuple(suite_tables(result.report)))
        show_page(console, page, f"Reports: {', '.join(result.files)}; each task's own are in folders beside them")

    return Outcome(result.to_json(), show, result.failure)


def show_report(console: Console, report: BenchmarkReport, files: Sequence[str] = ()) -> None:
    """The tables and the sentences of a benchmark, and where they are written."""
    from perceiver_deploy.evaluate.report.benchmark_page import benchmark_page
    from perceiver_deploy.evaluate.report.terminal import benchmark_tables

    page = replace(benchmark_page(report), tables=tuple(benchmark_tables(report)))
    show_page(console, page, *([f"Reports: {', '.join(files)}"] if files else []))


def show_page(console: Console, page: Page, *places: str) -> None:
    """Tables, what they say, where they are written, and what is recommended."""
    from perceiver_deploy.cli.tables import make_table

    for table in page.tables:
        console.print(make_table(table.title, table.header, table.rows))
    for sentence in (*page.summary, *places, *page.recommendation):
        console.print(sentence)
