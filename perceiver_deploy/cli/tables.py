"""Tables for people: no wider than 100 columns where words allow it, and no word cut whatever the width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

WIDTH = 100
"""Columns that a table may take."""
_GAP, _EDGES = 2, 2
_HEADER_LINES = (2, 3)


def make_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    """A table with names and texts to the left and figures to the right.

    Where it would be too wide, first the headers are broken between words, then the cells of the widest columns; then
    it is shown in parts, each with the first column.
    """
    columns = [_Column(header, tuple(cells)) for header, *cells in zip(headers, *rows, strict=True)]
    for lines in _HEADER_LINES:
        if _total(columns) > WIDTH:
            columns = [column.with_header_in(lines) for column in columns]
    can_fold = sum(column.width - column.least for column in columns) >= _total(columns) - WIDTH
    parts = [_fold_widest(columns)] if can_fold else [*_parts(columns)]
    return Group(Text(_fold(title, WIDTH), style="bold"), *map(_Whole, parts))


@dataclass(frozen=True)
class _Column:
    header: str
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        return max(cell_len(line) for text in (self.header, *self.cells) for line in text.splitlines() or [""])

    @property
    def least(self) -> int:
        """The width that it can be folded to: that of its longest word, or of its figures, which stay on one line."""
        words = max((cell_len(word) for text in (self.header, *self.cells) for word in text.split()), default=0)
        return max(words, _Column("", self.cells).width) if self.has_figures else words

    @property
    def has_figures(self) -> bool:
        """Whether most of its cells begin with a number, those left out that say nothing: `-`."""
        starts = [cell.lstrip("-")[0] for cell in self.cells if cell.strip("-")]
        return 2 * sum(start.isdigit() for start in starts) >= len(starts)

    def with_header_in(self, lines: int) -> _Column:
        """With a header of so many lines, or fewer where it is no wider than the cells then."""
        header = " ".join(self.header.split())
        width = max(_Column("", self.cells).width, 1)
        while _fold(header, width).count("\n") >= lines:
            width += 1
        return replace(self, header=_fold(header, width))

    def folded(self, width: int) -> _Column:
        """With lines of this width."""
        return _Column(_fold(self.header, width), tuple(_fold(cell, width) for cell in self.cells))


def _fold_widest(columns: Sequence[_Column]) -> list[_Column]:
    """Fold the columns that have most to give, until all fit."""
    widths = [column.width for column in columns]
    for _ in range(_total(columns) - WIDTH):
        widths[max(range(len(columns)), key=lambda at: widths[at] - columns[at].least)] -= 1
    return [
        column if width == column.width else column.folded(width) for column, width in zip(columns, widths, strict=True)
    ]


def _fold(text: str, width: int) -> str:
    """Break lines between words; a longer word stays whole."""
    lines = (textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in text.splitlines())
    return "\n".join(line for folded in lines for line in folded)


def _total(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1) + _EDGES


def _parts(columns: Sequence[_Column]) -> Iterator[list[_Column]]:
    """The first column with as many of the others as fit, at least one, until all are shown."""
    first, *others = columns
    starts = [0]
    for index in range(1, len(others)):
        if _total([first, *others[starts[-1] : index + 1]]) > WIDTH:
            starts.append(index)
    for start, end in pairwise([*starts, max(len(others), 1)]):
        yield [first, *others[start:end]]


@dataclass(frozen=True)
class _Whole:
    """A table that is rendered as wide as it is: rich would cut words on a narrower console."""

    columns: Sequence[_Column]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
        for index, column in enumerate(self.columns):
            justify: JustifyMethod = "right" if index and column.has_figures else "left"
            table.add_column(column.header, justify=justify, no_wrap=True)
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            table.add_row(*cells)
        yield from console.render(table, options.update(width=max(options.max_width, _total(self.columns))))


def fill(text: str) -> str:
    """Text in lines of `WIDTH` columns, broken between words; all but the first are indented by two more."""
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def megabytes(count: int) -> str:
    """`1.25 MB`."""
    return f"{count / 1e6:.2f} MB"


def percent(share: float) -> str:
    """`97.33 %`."""
    return f"{100 * share:.2f} %"
