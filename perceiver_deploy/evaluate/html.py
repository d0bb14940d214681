"""A benchmark's figures as one self-contained HTML page."""

from __future__ import annotations

from perceiver_deploy.data.metrics import format_value
from perceiver_deploy.errors import requires
from perceiver_deploy.evaluate.benchmark_report import BenchmarkReport

with requires("report", "Writing an HTML report"):
    import jinja2


def render_benchmark(report: BenchmarkReport) -> str:
    """The page of a report. It needs no network."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("perceiver_deploy.evaluate"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("benchmark.html").render(
        report=report, value=format_value, ms=lambda seconds: f"{1000 * seconds:.2f}"
    )
