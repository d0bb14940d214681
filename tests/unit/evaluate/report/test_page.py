"""Reports for people: what the page says, that it needs no network, and that plots follow the colours around them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from perceiver_deploy.evaluate.report.benchmark_page import page_of_benchmark
from perceiver_deploy.evaluate.report.page import INK, Page, Table, render_html, render_markdown
from perceiver_deploy.evaluate.report.plots import benchmark_plots, pareto_front
from tests.helpers.benchmark_reports import make_report


@pytest.fixture(scope="module")
def report():
    return make_report(lengths=(8, 16))


@pytest.fixture(scope="module")
def plots(report):
    return benchmark_plots(report)


def test_summary_comes_first_and_says_who_is_fastest(report):
    page = page_of_benchmark(report)
    assert page.title == "Benchmark of digits.bundle"
    assert page.summary[0] == "digits.bundle, batch 1, length 8: onnxruntime fp32 is fastest."
    assert "No candidate loses accuracy on digits by more than chance." in page.summary
    assert page.tables[-1].title == "Environment"
    assert ("onnxruntime", "1.32.0") in page.tables[-1].rows


def test_plots_are_those_that_the_report_has_figures_for(plots):
    assert [plot.name for plot in plots] == ["latency_by_batch", "latency_by_length", "accuracy_by_speed", "memory"]


def test_plots_are_well_formed_and_take_the_colour_of_the_text(plots):
    for plot in plots:
        text = plot.svg()
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert "currentColor" in text
        assert INK not in text
        assert plot.svg() == text


def test_html_loads_nothing_and_escapes_what_it_shows():
    table = Table("<b>", ("name", "figure"), (("<script>alert(1)</script>", "2"),))
    text = render_html(Page("A & B", ("1 < 2",), (table,), "command --with '<>'"))
    assert "<script>alert" not in text
    assert "<h1>A &amp; B</h1>" in text
    assert not re.search(r"""(src|href)=|url\(|@import|https?://""", text)


def test_markdown_has_sentences_command_and_tables(report):
    text = render_markdown(page_of_benchmark(report))
    assert text.startswith("# Benchmark of digits.bundle\n\n- digits.bundle, batch 1")
    assert "\n    perceiver-deploy benchmark digits.bundle --data digits\n" in text
    assert "| eager fp32 | top-1 accuracy | 95.00 % |" in text


def test_pareto_front_leaves_out_what_another_beats_in_both():
    points = [(1, 0.99), (2, 0.98), (3, 0.985), (4, 0.90), (0.5, 0.99)]
    assert pareto_front(points, higher_is_better=True) == [(1, 0.99), (3, 0.985), (4, 0.90)]
    assert pareto_front([(1, 0.2), (2, 0.3), (2, 0.4)], higher_is_better=False) == [(1, 0.2), (2, 0.3)]
