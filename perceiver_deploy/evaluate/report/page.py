"""A report for people: sentences first, then tables, then plots; rendered as HTML and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perceiver_deploy.errors import requires

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
"""The colour of text and axes in plots: black in a picture, that of the text around it in an SVG."""


@dataclass(frozen=True)
class Table:
    """A table: its first column names things, the others hold figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Plot:
    """A plot; `name` is that of its file."""

    name: str
    title: str
    figure: Figure

    def svg(self) -> str:
        """An SVG element whose text and axes have the colour of the text around it."""
        return _svg(self)


@dataclass(frozen=True)
class Page:
    """A report. `command` is what made it, `recommendation` what to do, after all else in a terminal."""

    title: str
    summary: tuple[str, ...]
    tables: tuple[Table, ...]
    command: str
    plots: tuple[Plot, ...] = field(default=())
    recommendation: tuple[str, ...] = ()


def render_html(page: Page) -> str:
    """One HTML file that needs no network."""
    with requires("report", "Writing an HTML report"):
        import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("perceiver_deploy.evaluate.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html").render(page=page)


def render_markdown(page: Page) -> str:
    """The sentences and the tables; plots are in the HTML."""
    parts = [f"# {page.title}", "\n".join(f"- {sentence}" for sentence in page.summary)]
    parts += [f"**{sentence}**" for sentence in page.recommendation]
    parts.append(f"    {page.command}")
    parts += [f"## {table.title}\n\n{markdown_table(table.header, table.rows)}" for table in page.tables]
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


def environment_table(environment: dict[str, object]) -> Table:
    """The machine and the software."""
    packages = environment.get("packages")
    flat = {**environment, **(packages if isinstance(packages, dict) else {})}
    rows = tuple((str(name), str(value)) for name, value in flat.items() if name != "packages")
    return Table("Environment", ("what", "value"), rows)


def _svg(plot: Plot) -> str:
    import io

    import matplotlib as mpl

    buffer = io.StringIO()
    plot.figure.draw_without_rendering()
    plot.figure.set_layout_engine("none")  # each drawing would move the axes a little further
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.name}):
        plot.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")
