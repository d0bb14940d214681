"""`perceiver-deploy train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import output_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.training import TrainingResult


@click.command(
    "train",
    cls=Verb,
    short_help="Train a small Perceiver by a recipe.",
    extra="train",
    example="perceiver-deploy train digits -o my-digits",
)
@click.argument("recipe")
@output_option
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of initialisation, data order and dropout.",
)
@click.option("--resume", is_flag=True, help="Go on from the state saved in the output folder.")
def command(recipe: str, output: Path, seed: int, *, resume: bool) -> Outcome:
    """Train RECIPE (digits) and write a checkpoint with its metric."""
    from perceiver_deploy.pipeline.training import train_recipe

    result = train_recipe(recipe, output, seed=seed, resume=resume)
    return Outcome(result.to_json(), lambda console: _show(console, result))


def _show(console: Console, result: TrainingResult) -> None:
    low, high = result.interval
    console.print(
        f"{result.recipe}: {100 * result.value:.2f} % {result.metric} ({result.examples} examples, 95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f} %), {result.parameters:,} parameters, {result.steps} steps in "
        f"{result.seconds:.0f} s. Checkpoint: {result.checkpoint}"
    )
