"""Writing report files."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from perceiver_deploy.cache import write_whole
from perceiver_deploy.errors import BundleError
from perceiver_deploy.evaluate.report.page import Page, Plot, render_html, render_markdown

_READABLE = 0o644
"""A report is for others too; what `write_whole` leaves is its owner's alone."""


def write_report(path: Path, content: str | bytes) -> Path:
    """Write a file whole, or leave what was there; returns `path`.

    Raises:
        BundleError: the place cannot be written.
    """
    try:
        write_whole(path, content.encode() if isinstance(content, str) else content)
        path.chmod(_READABLE)
    except OSError as error:
        raise BundleError(f"The report {path} could not be written: {error.strerror or error}.") from error
    return path


def require_folder(folder: Path) -> None:
    """Make the folder of a report before anything is measured for it.

    Raises:
        BundleError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BundleError(
            f"The report cannot be written to {folder}: {error.strerror or error}. Name another folder with -o."
        ) from error


def write_page(json_path: Path, text: str, page: Page, plots: Sequence[Plot], *, png: bool = False) -> tuple[Path, ...]:
    """Write a report's JSON with HTML and Markdown beside it; with `png`, each plot as a picture too.

    All are rendered before the first is written, so that a failure leaves what was there. Returns their paths, the
    JSON's first, then the HTML's.

    Raises:
        BundleError: the place cannot be written.
    """
    page = dataclasses.replace(page, plots=tuple(plots))
    rendered: dict[Path, str | bytes] = {
        json_path: text,
        json_path.with_suffix(".html"): render_html(page),
        json_path.with_suffix(".md"): render_markdown(page),
    }
    if png:
        rendered |= {json_path.with_name(f"{plot.name}.png"): _picture(plot) for plot in plots}
    return tuple(write_report(path, content) for path, content in rendered.items())


def _picture(plot: Plot) -> bytes:
    buffer = io.BytesIO()
    plot.figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()
