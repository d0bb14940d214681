"""`perceiver-deploy benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import threads_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.benchmark import BenchmarkResult


@click.command(
    "benchmark",
    cls=Verb,
    short_help="Measure accuracy and speed against eager.",
    extra="export,cpu,report",
    example="perceiver-deploy benchmark digits.bundle --data digits",
)
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="BUNDLE...")
@click.option("--data", help="Data set to measure accuracy on (digits); without it, inputs are random.")
@click.option("--batch", "batches", multiple=True, type=click.IntRange(min=1), default=[1, 32], show_default=True)
@click.option("--seconds", type=float, default=6.0, show_default=True, help="Time for each batch size.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the reports; default: BUNDLE/reports.")
@threads_option
def command(
    bundles: tuple[Path, ...],
    data: str | None,
    batches: tuple[int, ...],
    seconds: float,
    output: Path | None,
    threads: int | None,
) -> Outcome:
    """Measure accuracy and speed of every variant and runtime of BUNDLE against eager.

    Each candidate runs in a process of its own; they are called in turn, so that all see the same machine.
    """
    from perceiver_deploy.pipeline.benchmark import benchmark_bundles

    result = benchmark_bundles(bundles, data=data, batches=batches, seconds=seconds, threads=threads, output=output)

    def show(console: Console) -> None:
        show_measurements(console, result)
        console.print(f"Reports: {result.report_json} and {result.report_html}")

    return Outcome(result.to_json(), show)


def show_measurements(console: Console, result: BenchmarkResult) -> None:
    """One row a candidate: accuracy, then median latency and speed-up at each batch size, then size."""
    from perceiver_deploy.cli.tables import make_table

    measurements = result.measurements
    accuracy = measurements[0].accuracy
    metrics = () if accuracy is None else accuracy.metrics
    headers = ["candidate", *(metric.metric for metric in metrics), *(["= eager %"] if metrics else [])]
    for latency in measurements[0].latencies:
        headers += [f"b{latency.batch} ms", "x"]
    rows = []
    for m in measurements:
        row = [m.name]
        if m.accuracy is not None:
            agreement = m.accuracy.agreement
            row += [metric.text() for metric in m.accuracy.metrics]
            row.append("" if agreement is None else f"{100 * agreement:.2f}")
        for latency in m.latencies:
            row += [f"{1000 * latency.percentile(50):.2f}", f"{m.speed_up[latency.batch]:.2f}"]
        rows.append([*row, f"{m.file_bytes / 1e6:.2f}"])
    threads = result.environment["threads"]
    console.print(
        make_table(
            f"Accuracy, median latency by batch, speed-up (x) over eager; threads: {threads}",
            [*headers, "MB"],
            rows,
        )
    )
    for metric in metrics:
        low, high = (metric.text(bound) for bound in metric.interval)
        console.print(f"{metric.metric} on {metric.examples} test examples; eager's 95 % interval is {low} to {high}")
