"""`perceiver-deploy validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import bundle_argument, threads_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.validate.validate import Failure, ValidationResult


_SHOWN = 10
"""Number of bisected modules shown in the table; the report lists all."""


@click.command(
    "validate",
    cls=Verb,
    short_help="Check the outputs of a bundle.",
    extra="cpu",
    example="perceiver-deploy validate digits.bundle",
)
@bundle_argument
@click.option("--golden", is_flag=True, help="Replay the golden samples only, even if eager could run the grid.")
@click.option("--data", help="Also check real inputs: a data set, or a .npz file of the model's inputs.")
@click.option(
    "--input",
    "sample",
    type=click.Path(path_type=Path),
    help="Check only this sample: the file written by an earlier failure.",
)
@click.option(
    "--add-exact",
    is_flag=True,
    help="First add to BUNDLE the missing exact outputs of each variant's graph for the golden samples.",
)
@click.option("--bisect", is_flag=True, help="Report errors per module for every variant, not only failing ones.")
@click.option(
    "--seconds", type=float, default=120.0, show_default=True, help="Time budget in seconds for the reference."
)
@threads_option
def command(
    bundle: Path,
    *,
    golden: bool,
    data: str | None,
    sample: Path | None,
    add_exact: bool,
    bisect: bool,
    seconds: float,
    threads: int | None,
) -> Outcome:
    """Check the outputs of every variant of BUNDLE in every runtime available here; exit code 3 if one is off.

    The reference is eager float64 over a grid of shapes, masks and adversarial inputs; without torch, the golden
    samples. On golden samples, variants in reduced precision are also compared with the exact outputs of their own
    graph, which separates faults of this machine from the cost of the precision. A failing sample is written to a
    file, with a command that reproduces the failure. See docs/validation.md.
    """
    from perceiver_deploy.errors import ParityError
    from perceiver_deploy.pipeline.validate.validate import validate_bundle

    result = validate_bundle(
        bundle,
        golden=golden,
        data=data,
        sample=sample,
        add_exact=add_exact,
        bisect=bisect,
        seconds=seconds,
        threads=threads,
    )
    failure = None if result.failure is None else ParityError(_failure(result, result.failure))
    return Outcome(result.to_json(), lambda console: _show(console, result), failure)


def _failure(result: ValidationResult, failure: Failure) -> str:
    from perceiver_deploy.evaluate.parity.verdicts import failure_text

    bisections = "".join(f" {bisection}" for bisection in result.bisections if bisection.first is not None)
    return (
        f"{failure_text(result.verdicts)}{bisections} Show the smallest case that fails again with: {failure.command}"
    )


def _show(console: Console, result: ValidationResult) -> None:
    from perceiver_deploy.cli.tables import make_table, percent

    rows = [
        (
            f"{v.runtime} {v.variant}" if v.stages == "full" else f"{v.runtime} {v.variant}, {v.stages}",
            v.case,
            v.output,
            f"{v.figures.relative_l2:.1e} ({v.bound:.1e})",
            f"{v.figures.worst_row:.1e} ({v.row_bound:.1e})",
            "-" if v.graph_error is None else f"{v.graph_error:.1e} ({v.graph_bound:.1e})",
            str(v.figures.non_finite),
            "" if v.figures.top1 is None else percent(v.figures.top1),
            "pass" if v.passed else "FAIL",
        )
        for v in result.verdicts
    ]
    distances = ("off eager (bound)", "worst row (bound)", "off its graph (bound)")
    headers = ("runtime", "case", "output", *distances, "NaN, Inf", "same top-1", "")
    console.print(make_table(f"Relative L2 against eager float64 ({result.reference})", headers, rows))
    for text in dict.fromkeys(f"{v.runtime} {v.variant}: {v.error}" for v in result.verdicts if v.error is not None):
        console.print(text)
    for bisection in result.bisections:
        modules = [
            (str(m), f"{m.relative_l2:.1e}", f"{m.sqnr_db:.0f}", f"{m.growth:.2g}") for m in bisection.modules[:_SHOWN]
        ]
        console.print(make_table(str(bisection), ("lowest SQNR", "relative L2", "SQNR dB", "growth"), modules))
    for precision, reason in result.tolerances.items():
        console.print(f"Bound of {precision}: {reason}.")
    if result.capped:
        console.print(f"Left out for time: {'; '.join(result.capped)}")
    console.print(f"Report: {result.report}")
