"""`perceiver-deploy data`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console


@click.group("data", short_help="List data sets and fetch their files.")
def command() -> None:
    """List the data sets that train, convert and benchmark know by name, and fetch their public files."""


@command.command(
    "list", cls=Verb, short_help="List the data sets.", extra="train", example="perceiver-deploy data list --count"
)
@click.option("--count", is_flag=True, help="Load the available data sets and count their examples.")
def list_data_sets(count: bool) -> Outcome:
    """List the data sets and their files, their licences, and whether they are available here."""
    from perceiver_deploy.pipeline.fetch import describe_data_sets, describe_files

    data_sets, files = describe_data_sets(count=count), describe_files()

    def show(console: Console) -> None:
        _show_rows(console, "Data sets", data_sets)
        _show_rows(console, "Files", [{key: row[key] for key in row if key not in ("file", "sha256")} for row in files])

    return Outcome({"data_sets": data_sets, "files": files}, show)


@command.command(
    "fetch",
    cls=Verb,
    short_help="Fetch the files of data sets.",
    extra="train",
    example="perceiver-deploy data fetch vader asterisk-en",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
def fetch_data_sets(names: tuple[str, ...]) -> Outcome:
    """Fetch the files of data sets, or single files, into the cache; without NAME, all of them.

    pip and apt fetch them from their configured sources; root is not needed. Files already in the cache with the right
    digest are not fetched again. The cache is $PERCEIVER_DEPLOY_CACHE, else perceiver-deploy in $XDG_CACHE_HOME or
    ~/.cache.
    """
    from perceiver_deploy.pipeline.fetch import fetch_files

    rows = fetch_files(names)

    def show(console: Console) -> None:
        _show_rows(console, "In the cache", [{key: row[key] for key in ("name", "bytes", "seconds")} for row in rows])
        for row in rows:
            console.print(row["path"])

    return Outcome(rows, show)


def _show_rows(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    from perceiver_deploy.cli.tables import make_table

    if not rows:
        console.print("There is nothing to fetch: these data sets come with a package.")
        return
    console.print(make_table(title, tuple(rows[0]), [[_text(value) for value in row.values()] for row in rows]))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(value) if isinstance(value, list) else "-" if value is None else str(value)
