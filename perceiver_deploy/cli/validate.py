"""`perceiver-deploy validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import bundle_argument, threads_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.validate import ValidationResult


@click.command(
    "validate",
    cls=Verb,
    short_help="Check the numbers of a bundle.",
    extra="cpu",
    example="perceiver-deploy validate digits.bundle",
)
@bundle_argument
@click.option("--golden", is_flag=True, help="Replay the golden samples even where eager could run the grid.")
@click.option("--seconds", type=float, default=120.0, show_default=True, help="Time for the reference.")
@threads_option
def command(bundle: Path, *, golden: bool, seconds: float, threads: int | None) -> Outcome:
    """Check the numbers of every variant of BUNDLE in every runtime that can run here; exit code 3 if one is off.

    The reference is eager float64 over a grid of shapes and masks; without torch, the golden samples.
    """
    from perceiver_deploy.errors import ParityError
    from perceiver_deploy.evaluate.parity import failure_text
    from perceiver_deploy.pipeline.validate import validate_bundle

    result = validate_bundle(bundle, golden=golden, seconds=seconds, threads=threads)
    failure = None if result.passed else ParityError(failure_text(result.verdicts))
    return Outcome(result.to_json(), lambda console: _show(console, result), failure)


def _show(console: Console, result: ValidationResult) -> None:
    from perceiver_deploy.cli.tables import make_table, percent

    rows = [
        (
            f"{v.runtime} {v.variant}",
            v.stages,
            v.case,
            v.output,
            f"{v.figures.relative_l2:.1e}",
            f"{v.bound:.1e}",
            f"{v.figures.max_abs:.1e}",
            f"{v.figures.sqnr_db:.0f}",
            "" if v.figures.top1 is None else percent(v.figures.top1),
            "pass" if v.passed else "FAIL",
        )
        for v in result.verdicts
    ]
    headers = ("runtime", "stages", "case", "output", "relative L2", "bound", "max abs", "SQNR dB", "same top-1", "")
    console.print(make_table(f"Parity against eager float64 ({result.reference})", headers, rows))
    if result.capped:
        console.print(f"Left out for time: {'; '.join(result.capped)}")
    console.print(f"Report: {result.report}")
