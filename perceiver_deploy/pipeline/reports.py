"""Writing report files."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from perceiver_deploy.errors import BundleError
from perceiver_deploy.evaluate.report.page import Page, Plot, render_html, render_markdown


def write_report(path: Path, text: str) -> Path:
    """Write a text file under a temporary name, then rename it; returns `path`.

    Raises:
        BundleError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            file.write(text)
        partial = Path(file.name)
        partial.chmod(0o644)
        return partial.replace(path)
    except OSError as error:
        raise BundleError(f"The report {path} could not be written: {error.strerror or error}.") from error


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

    Returns their paths, the JSON's first, then the HTML's.

    Raises:
        BundleError: the place cannot be written.
    """
    page = dataclasses.replace(page, plots=tuple(plots))
    written = [
        write_report(json_path, text),
        write_report(json_path.with_suffix(".html"), render_html(page)),
        write_report(json_path.with_suffix(".md"), render_markdown(page)),
    ]
    for plot in plots if png else ():
        path = json_path.with_name(f"{plot.name}.png")
        try:
            plot.figure.savefig(path, dpi=160)
        except OSError as error:
            raise BundleError(f"The plot {path} could not be written: {error.strerror or error}.") from error
        written.append(path)
    return tuple(written)
