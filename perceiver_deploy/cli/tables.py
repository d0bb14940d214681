"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table


def make_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with the first column left-aligned and the others right-aligned."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if index else "left", no_wrap=not index)
    for row in rows:
        table.add_row(*row)
    return table


def megabytes(count: int) -> str:
    """`1.25 MB`."""
    return f"{count / 1e6:.2f} MB"


def percent(share: float) -> str:
    """`97.33 %`."""
    return f"{100 * share:.2f} %"
