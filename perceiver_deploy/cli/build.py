"""`perceiver-deploy build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import bundle_argument, force_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.build import BuildResult


@click.command(
    "build",
    cls=Verb,
    short_help="Compile a TensorRT-RTX engine (needs no GPU).",
    extra="export,rtx",
    example="perceiver-deploy build digits.bundle --engine tensorrt-rtx --variant int8 --shapes batch=1:1:32",
)
@bundle_argument
@click.option("--engine", type=click.Choice(["tensorrt-rtx"]), required=True, help="Engine family.")
@click.option("--variant", default="fp32", show_default=True, help="Variant to compile.")
@click.option("--shapes", multiple=True, metavar="AXIS=MIN:OPT:MAX", help="Profile of one axis; may be repeated.")
@click.option(
    "--compute-capability", "capabilities", multiple=True, default=["8.9"], show_default=True, help="May be repeated."
)
@click.option("--name", help="Name of the engine; default: VARIANT-rtx.")
@force_option
def command(
    bundle: Path,
    engine: str,
    variant: str,
    shapes: tuple[str, ...],
    capabilities: tuple[str, ...],
    name: str | None,
    *,
    force: bool,
) -> Outcome:
    """Compile a variant of BUNDLE ahead of time; needs no GPU. Running the engine does."""
    from perceiver_deploy.pipeline.build import build_engine

    result = build_engine(
        bundle,
        engine=engine,
        variant=variant,
        shapes=shapes,
        compute_capabilities=capabilities,
        name=name,
        force=force,
    )
    return Outcome(result.to_json(), lambda console: _show(console, result))


def _show(console: Console, result: BuildResult) -> None:
    from perceiver_deploy.cli.tables import megabytes

    seconds, capabilities = result.facts["seconds"], ", ".join(result.facts["compute_capabilities"])
    console.print(
        f"Built {result.bundle}/{result.file}: {megabytes(result.engine_bytes)} in {seconds:.1f} s for compute "
        f"capability {capabilities}. It was not run here."
    )
