"""`perceiver-deploy demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import force_option, output_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.demo import DemoResult


@click.command(
    "demo",
    cls=Verb,
    short_help="Run the whole pipeline on a shipped checkpoint.",
    extra="train,cpu,report",
    example="perceiver-deploy demo -o demo",
)
@output_option
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Number of threads for each candidate."
)
@force_option
def command(output: Path, threads: int, *, force: bool) -> Outcome:
    """Export, quantise, compile, validate and measure a shipped, trained checkpoint on its real test set."""
    from perceiver_deploy.errors import ParityError
    from perceiver_deploy.evaluate.parity.verdicts import failure_text
    from perceiver_deploy.pipeline.demo import run_demo

    result = run_demo(output, threads=threads, force=force)
    verdicts = result.validation.verdicts
    failure = None if result.validation.passed else ParityError(failure_text(verdicts))
    return Outcome(result.to_json(), lambda console: _show(console, result), failure)


def _show(console: Console, result: DemoResult) -> None:
    from perceiver_deploy.cli.benchmark import show_report

    show_report(console, result.benchmark.report)
    report = result.conversion.reports["full"]
    checked, passed = len(result.validation.verdicts), sum(v.passed for v in result.validation.verdicts)
    console.print(f"Parity: {passed} of {checked} comparisons with eager float64 passed ({result.validation.report})")
    console.print(f"INT8: {report.lines()[0]}")
    engine = f"{result.export.bundle}/{result.engine.file}" if result.engine else result.engine_absent
    console.print(f"Engine: {engine}")
    console.print(f"Report: {result.benchmark.report_html}")
    console.print(f"Bundle: {result.export.bundle} (took {result.seconds:.0f} s)")
