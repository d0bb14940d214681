"""`perceiver-deploy train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import output_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.train import TrainingResult


@click.command(
    "train",
    cls=Verb,
    short_help="Train a small Perceiver from a recipe.",
    extra="train",
    example="perceiver-deploy train digits -o my-digits",
)
@click.argument("recipe")
@output_option
@click.option("--from", "origin", help="Checkpoint to start from: a path, a shipped name or a hub name.")
@click.option("--keep-head", is_flag=True, help="With --from: refuse a checkpoint with another task or other labels.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of initialisation, data order and dropout.",
)
@click.option("--resume", is_flag=True, help="Resume from the state saved in the output folder.")
def command(recipe: str, output: Path, *, origin: str | None, keep_head: bool, seed: int, resume: bool) -> Outcome:
    """Train RECIPE and write a checkpoint with its metric and a baseline's.

    With --from, architecture, input adapter and encoder come from a checkpoint of the same modality. Its head is kept
    if task and labels are the same, and replaced otherwise.
    """
    from perceiver_deploy.pipeline.train import train_recipe

    result = train_recipe(recipe, output, origin=origin, keep_head=keep_head, seed=seed, resume=resume)
    return Outcome(result.to_json(), lambda console: _show(console, result))


def _show(console: Console, result: TrainingResult) -> None:
    for measured, baseline in zip(result.metrics, result.baseline_metrics, strict=True):
        low, high = (measured.text(bound) for bound in measured.interval)
        console.print(
            f"{result.recipe}: {measured.metric} {measured.text()} on {measured.examples} test examples (95 % interval "
            f"{low} to {high}); {result.baseline}: {baseline.text()}"
        )
    console.print(
        f"{result.parameters:,} parameters, {result.steps} steps in {result.seconds:.0f} s. "
        f"Checkpoint: {result.checkpoint}"
    )
