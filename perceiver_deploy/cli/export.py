"""`perceiver-deploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import force_option, output_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.bundle.manifest import RuntimeName
    from perceiver_deploy.export.options import AttentionForm
    from perceiver_deploy.model.checkpoints.load import Form
    from perceiver_deploy.pipeline.export.export import ExportResult
    from perceiver_deploy.pipeline.export.stages import SplitMode


@click.command(
    "export",
    cls=Verb,
    short_help="Export a checkpoint as a verified bundle.",
    extra="export,cpu",
    example="perceiver-deploy export digits -o digits.bundle",
)
@click.argument("checkpoint")
@output_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["native", "huggingface", "haiku", "krasserm", "lucidrains"]),
    help="Format of the checkpoint; default: auto-detected.",
)
@click.option(
    "--split", "split", flag_value="beside", help="Also write encoder and decoder, to encode once and query often."
)
@click.option("--split-only", "split", flag_value="only", help="Write encoder and decoder instead of the whole model.")
@click.option(
    "--raw-inputs",
    is_flag=True,
    help="Include preprocessing in the graph, which then takes raw pixels, bytes or samples.",
)
@click.option("--no-validate", is_flag=True, help="Skip the parity gate.")
@click.option("--no-weights", is_flag=True, help="Leave the source model's weights out of the bundle.")
@click.option("--opset", type=click.IntRange(17, 23), default=20, show_default=True, help="ONNX opset version.")
@click.option(
    "--for",
    "runtimes",
    multiple=True,
    type=click.Choice(
        ["onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "openvino", "tensorrt", "tensorrt-rtx"]
    ),
    help="Target runtime; may be repeated. Default: onnxruntime, openvino, tensorrt-rtx.",
)
@click.option("--external-data", is_flag=True, help="Store weights in a separate file; always done above 1.5 GB.")
@click.option(
    "--gate-seconds",
    type=float,
    default=120.0,
    show_default=True,
    help="Time budget in seconds for the parity gate's reference.",
)
@click.option("--no-reassociate", is_flag=True, help="Do not reassociate the matrix products of attentions.")
@click.option(
    "--attention",
    type=click.Choice(["auto", "portable", "onnxruntime", "opset23", "rows", "all-rows"]),
    default="auto",
    show_default=True,
    help="Form of the attentions. onnxruntime needs --for onnxruntime; opset23 needs --opset 23 and --for. rows and "
    "all-rows, for large grids, need --for onnxruntime or openvino, and are what auto chooses there.",
)
@click.option("--pad-heads", is_flag=True, help="Pad heads to a multiple of 8 channels, for TensorRT's kernels.")
@force_option
def command(
    checkpoint: str,
    output: Path,
    *,
    form: Form | None,
    split: SplitMode | None,
    raw_inputs: bool,
    no_validate: bool,
    no_weights: bool,
    opset: int,
    runtimes: tuple[RuntimeName, ...],
    external_data: bool,
    gate_seconds: float,
    no_reassociate: bool,
    attention: AttentionForm,
    pad_heads: bool,
    force: bool,
) -> Outcome:
    """Export CHECKPOINT (a directory, DeepMind pickle, Lightning file, shipped name or hub name) as a bundle.

    The ONNX model is compared with eager float64 at several shapes. If it differs, no bundle is written, the evidence
    is kept in OUTPUT.failed and the exit code is 3.
    """
    from perceiver_deploy.export.options import EXTERNAL_ABOVE, GraphOptions
    from perceiver_deploy.pipeline.export.export import export_model

    result = export_model(
        checkpoint,
        output,
        form=form,
        split=split,
        force=force,
        validate=not no_validate,
        weights=not no_weights,
        gate_seconds=gate_seconds,
        options=GraphOptions(
            reassociate=not no_reassociate,
            opset=opset,
            attention=attention,
            pad_heads=pad_heads,
            external_above=0 if external_data else EXTERNAL_ABOVE,
        ),
        runtimes=runtimes or None,
        raw_inputs=raw_inputs,
    )
    return Outcome(result.to_json(), lambda console: _show(console, result))


def _show(console: Console, result: ExportResult) -> None:
    from perceiver_deploy.cli.tables import make_table, megabytes

    rows = [
        (v.stages, v.case, v.sizes, f"{v.figures.relative_l2:.1e}", f"{v.bound:.1e}", f"{v.figures.max_abs:.1e}")
        for v in result.verdicts
    ]
    if rows:
        headers = ("stages", "case", "shapes", "relative L2", "bound", "max abs")
        console.print(make_table("Parity gate: onnxruntime against eager float64", headers, rows))
    else:
        console.print("Parity was not checked (--no-validate).")
    if result.capped:
        console.print(f"Left out for time: {'; '.join(result.capped)}")
    graphs = ", ".join(
        f"{stage} of {sum(graph.operators.values())} nodes and {megabytes(graph.bytes)}"
        for stage, graph in result.graphs.items()
    )
    console.print(f"Wrote {result.bundle}: {result.task}, {result.parameters:,} parameters; ONNX: {graphs}.")
