"""`perceiver-deploy convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import bundle_argument, force_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.convert import ConvertResult


@click.command(
    "convert",
    cls=Verb,
    short_help="Add an INT8 variant to a bundle.",
    extra="export,cpu",
    example="perceiver-deploy convert digits.bundle --precision int8 --calibration digits",
)
@bundle_argument
@click.option("--precision", type=click.Choice(["int8"]), required=True, help="Precision of the new variant.")
@click.option("--calibration", required=True, help="Data set (digits) or .npz file with one array an input.")
@click.option("--samples", type=click.IntRange(min=1), default=256, show_default=True, help="Calibration samples.")
@force_option
def command(bundle: Path, precision: str, calibration: str, samples: int, *, force: bool) -> Outcome:
    """Add a variant of another precision to BUNDLE."""
    from perceiver_deploy.pipeline.convert import convert_bundle

    result = convert_bundle(bundle, precision=precision, calibration=calibration, samples=samples, force=force)
    return Outcome(result.to_json(), lambda console: _show(console, result))


def _show(console: Console, result: ConvertResult) -> None:
    from perceiver_deploy.cli.tables import megabytes, percent

    console.print(
        f"Added {result.variant} to {result.bundle}, calibrated on {result.samples} samples, "
        f"{megabytes(result.source_bytes)} -> {megabytes(result.onnx_bytes)}."
    )
    for stage, report in result.reports.items():
        console.print(f"  {stage}: {report.quantized} of {report.weight_gemms} weight GEMMs quantised")
        if report.left:
            console.print(f"  not quantised: {', '.join(report.left)}")
    agreement = "" if result.top1 is None else f", same top-1 in {percent(result.top1)}"
    console.print(f"Against fp32 on calibration samples: relative L2 {result.relative_l2:.1e}{agreement}.")
