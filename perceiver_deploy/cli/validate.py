"""`perceiver-deploy validate`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import bundle_argument, threads_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.evaluate.parity.verdicts import Verdict
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


def _error_text(verdict: Verdict) -> str:
    """`1.2e-07 (1e-06)`, or `3 NaN, Inf`."""
    figures = verdict.figures
    if figures.non_finite:
        return f"{figures.non_finite} NaN, Inf"
    return f"{figures.relative_l2:.1e} ({verdict.bound:.0e})"


def _share(error: float | None, bound: float | None) -> str:
    """`40 %`: how much of its bound an error is."""
    return f"{100 * error / bound:.0f} %" if error is not None and bound and math.isfinite(error) else "-"


def _shown(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """For each output of a candidate the case nearest to its bound, or every case beyond it."""
    worst: dict[tuple[str, ...], Verdict] = {}
    for verdict in verdicts:
        key = (verdict.runtime, verdict.variant, verdict.stages, verdict.output)
        if key not in worst or verdict.excess > worst[key].excess:
            worst[key] = verdict
    return [one for one in verdicts if not one.passed or any(one is shown for shown in worst.values())]


def _show(console: Console, result: ValidationResult) -> None:
    from perceiver_deploy.cli.tables import make_table, percent

    cases = dict.fromkeys(v.case for v in result.verdicts)
    rows = [
        (
            f"{v.runtime} {v.variant}" if v.stages == "full" else f"{v.runtime} {v.variant}, split",
            f"{v.output}, {v.case}",
            _error_text(v),
            _share(v.figures.worst_row, v.row_bound),
            _share(v.graph_error, v.graph_bound),
            "" if v.figures.top1 is None else percent(v.figures.top1),
            "pass" if v.passed else "FAIL",
        )
        for v in _shown(result.verdicts)
    ]
    distances = ("off eager (bound)", "worst row, of bound", "its graph, of bound")
    headers = ("candidate", "output, worst case", *distances, "same top-1", "")
    title = f"Relative L2 against eager float64 ({result.reference}), the worst of {len(cases)} cases and all that fail"
    console.print(make_table(title, headers, rows))
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
