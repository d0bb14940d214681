"""`perceiver-deploy convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import bundle_argument, force_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.bundle.manifest import Precision
    from perceiver_deploy.export.calibration.thresholds import Method
    from perceiver_deploy.pipeline.convert.convert import ConvertResult
    from perceiver_deploy.pipeline.convert.int8 import Target


@click.command(
    "convert",
    cls=Verb,
    short_help="Add an INT8, fp16 or bf16 variant to a bundle.",
    extra="export,cpu",
    example="perceiver-deploy convert digits.bundle --precision int8 --calibration digits",
)
@bundle_argument
@click.option(
    "--precision",
    type=click.Choice(["int8", "int8-weights", "fp16", "bf16"]),
    required=True,
    help="Precision of the new variant. int8-weights: only weights are INT8, computation is float32; no calibration.",
)
@click.option(
    "--calibration",
    help="Data set, such as digits, or .npz file with one array per input. Required for int8; other "
    "precisions default to the golden samples.",
)
@click.option(
    "--for",
    "target",
    type=click.Choice(["cpu", "vnni", "tensorrt"]),
    help="Target, which becomes part of the variant's name; default: every runtime that fp32 is for, on any "
    "processor. cpu: unsigned activations, which TensorRT cannot read. vnni, tensorrt: full weight range, which "
    "saturates on x86 processors without INT8 dot products.",
)
@click.option(
    "--method",
    type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
    default="minmax",
    show_default=True,
    help="Choose the ranges by this method.",
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=256, show_default=True, help="Number of calibration samples."
)
@click.option(
    "--ranges",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Ranges file to use, one per stage; default: the matching ones in the bundle, else measured.",
)
@click.option("--equalise", "equalised", is_flag=True, help="Move outlier activation channels into the weights.")
@click.option(
    "--max-drop",
    metavar="X",
    help="Largest allowed drop of the task's metric against eager: 0.5 (points) or 1% (relative). Layers are returned "
    "to float32 until it is met; exit code 4 if it cannot be met.",
)
@click.option(
    "--held-out",
    help="Data to judge --max-drop on: a data set (its test split; default: that of --calibration) or a .npz file with "
    "one array per input and optional labels. Without labels, agreement with eager and SQNR are judged.",
)
@force_option
def command(
    bundle: Path,
    precision: Precision,
    calibration: str | None,
    target: Target | None,
    method: Method,
    samples: int,
    ranges: tuple[Path, ...],
    *,
    equalised: bool,
    max_drop: str | None,
    held_out: str | None,
    force: bool,
) -> Outcome:
    """Add a variant in another precision to BUNDLE."""
    from perceiver_deploy.pipeline.convert.convert import convert_bundle
    from perceiver_deploy.pipeline.convert.search import ContractError

    try:
        result = convert_bundle(
            bundle,
            precision=precision,
            calibration=calibration,
            target=target,
            method=method,
            samples=samples,
            ranges=ranges,
            equalised=equalised,
            max_drop=max_drop,
            held_out=held_out,
            force=force,
        )
    except ContractError as error:
        return Outcome({"bundle": str(bundle), **error.to_json()}, lambda console: None, error)
    return Outcome(result.to_json(), lambda console: _show(console, result))


def _show(console: Console, result: ConvertResult) -> None:
    from perceiver_deploy.cli.tables import megabytes, percent

    console.print(
        f"Added {result.variant} to {result.bundle}, with {result.samples} samples ({result.calibration}), "
        f"{megabytes(result.source_bytes)} -> {megabytes(result.onnx_bytes)}."
    )
    for stage, report in result.reports.items():
        for line in report.lines():
            console.print(f"  {stage}: {line}")
    for line in () if result.contract is None else result.contract.lines():
        console.print(f"  {line}")
    agreement = "" if result.top1 is None else f", same top-1 in {percent(result.top1)}"
    console.print(f"Against fp32 on these samples: relative L2 {result.relative_l2:.1e}{agreement}.")
