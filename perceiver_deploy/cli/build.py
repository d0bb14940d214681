"""`perceiver-deploy build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perceiver_deploy.cli.options import bundle_argument, force_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.build import BuildResult


@click.command(
    "build",
    cls=Verb,
    short_help="Compile a TensorRT-RTX engine (needs no GPU) or a TensorRT engine.",
    extra="export,rtx",
    example="perceiver-deploy build digits.bundle --engine tensorrt-rtx --variant int8 --shapes batch=1:1:32",
)
@bundle_argument
@click.option("--engine", type=click.Choice(["tensorrt-rtx", "tensorrt"]), required=True, help="Engine family.")
@click.option("--variant", default="fp32", show_default=True, help="Variant to compile.")
@click.option(
    "--stage",
    type=click.Choice(["full", "encoder", "decoder"]),
    default="full",
    show_default=True,
    help="Stage to compile.",
)
@click.option(
    "--shapes",
    multiple=True,
    metavar="AXIS=MIN:OPT:MAX",
    help="Sizes of one axis; may be repeated. Give an axis several times for several profiles.",
)
@click.option(
    "--compute-capability",
    "capabilities",
    multiple=True,
    help="TensorRT-RTX: compute capability of the target GPU, default 8.9; may be repeated.",
)
@click.option("--refit", is_flag=True, help="Allow the weights to be replaced later; needs a GPU.")
@click.option("--strip-weights", is_flag=True, help="Keep the weights in the ONNX file only; needs a GPU.")
@click.option("--hardware-compatible", is_flag=True, help="TensorRT: run on every GPU from Ampere on.")
@click.option("--version-compatible", is_flag=True, help="TensorRT: run with later releases of the same major version.")
@click.option("--name", help="Name of the engine; default: VARIANT-rtx or VARIANT-trt.")
@force_option
def command(bundle: Path, capabilities: tuple[str, ...], **options: Any) -> Outcome:
    """Compile a variant of BUNDLE. TensorRT-RTX compiles without a GPU; running the engine needs one."""
    from perceiver_deploy.pipeline.build import build_engine

    result = build_engine(bundle, compute_capabilities=capabilities or None, **options)
    return Outcome(result.to_json(), lambda console: _show(console, result))


def _show(console: Console, result: BuildResult) -> None:
    from perceiver_deploy.cli.tables import megabytes

    facts = result.facts
    how = "taken from the cache, built" if result.reused else "built"
    size, capabilities = megabytes(result.engine_bytes), ", ".join(facts["compute_capabilities"])
    console.print(
        f"{result.bundle}/{result.file}: {size}, {how} in {facts['seconds']:.1f} s for compute capability "
        f"{capabilities}. It was not run here."
    )
    for number, axes in enumerate(facts["axes"]):
        sizes = ", ".join(f"{name}={each['min']}:{each['opt']}:{each['max']}" for name, each in axes.items())
        console.print(f"  profile {number}: {sizes}")
    if facts["layers"]:
        console.print(f"  layers: {', '.join(f'{kind} {count}' for kind, count in facts['layers'].items())}")
    if facts["gemm_dtypes"]:
        dtypes = ", ".join(f"{dtype} {count}" for dtype, count in facts["gemm_dtypes"].items())
        console.print(f"  inputs of matrix products: {dtypes}")
    if facts["activation_bytes"]:
        console.print(f"  memory at the largest shapes, beside the weights: {megabytes(facts['activation_bytes'])}")
    for attention in facts["attentions"]:
        verdict = "can be fused" if attention["fusible"] else f"not fused: {attention['why_not']}"
        console.print(f"  {attention['module']}{_times(attention['count'])}: {verdict}")
    for warning in facts["warnings"]:
        console.print(f"  warning: {warning}")
    console.print(f"  all that the builder said: {result.bundle}/{result.builder_log}")


def _times(count: int) -> str:
    return "" if count == 1 else f" x {count}"
