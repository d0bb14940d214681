"""`perceiver-deploy data`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console


@click.group("data", short_help="List the data sets.")
def command() -> None:
    """List the data sets, their licences and where they come from."""


@command.command(
    "list", cls=Verb, short_help="List the data sets.", extra="train", example="perceiver-deploy data list"
)
def list_data_sets() -> Outcome:
    """List the data sets that train, convert and benchmark know by name."""
    from perceiver_deploy.data.datasets import LOADERS, load_dataset

    rows = []
    for name in LOADERS:
        data = load_dataset(name)
        rows.append(
            {
                "name": name,
                "task": data.task,
                "train": len(data.train),
                "test": len(data.test),
                "license": data.license,
                "source": data.source,
            }
        )

    def show(console: Console) -> None:
        from perceiver_deploy.cli.tables import make_table

        console.print(make_table("Data sets", tuple(rows[0]), [[str(value) for value in row.values()] for row in rows]))

    return Outcome(rows, show)
