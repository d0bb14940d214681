"""A benchmark's figures as one self-contained HTML page."""

from __future__ import annotations

from typing import Any

from perceiver_deploy.data.metrics import format_value
from perceiver_deploy.errors import requires

with requires("report", "Writing an HTML report"):
    import jinja2


def render_benchmark(document: dict[str, Any]) -> str:
    """The page of the document that `benchmark.json` holds. It needs no network."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("perceiver_deploy.evaluate"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("benchmark.html").render(
        **document, value=format_value, ms=lambda seconds: f"{1000 * seconds:.2f}"
    )
