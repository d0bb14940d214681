"""Candidates that do not give their graph's numbers are named in every report, with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from perceiver_deploy.errors import ParityError
from perceiver_deploy.evaluate.report.benchmark_document import BenchmarkReport, LeftOut, Settings
from perceiver_deploy.evaluate.report.benchmark_page import page_of_benchmark
from perceiver_deploy.evaluate.report.page import render_html, render_markdown
from perceiver_deploy.evaluate.report.suite_document import SuiteReport, task_lines
from perceiver_deploy.evaluate.report.suite_page import page_of_suite
from perceiver_deploy.pipeline.benchmark import rounds
from perceiver_deploy.runtimes.way import Way
from tests.helpers.benchmark_reports import make_report

REASON = "It is 1.2e-02 off what its graph gives."
SENTENCE = f"openvino int8 of digits.bundle is left out. {REASON}"


def report():
    left_out = (LeftOut(bundle="a/digits.bundle", candidate="openvino int8", reason=REASON),)
    return make_report().model_copy(update={"left_out": left_out})


def test_candidate_that_does_not_conform_is_left_out_with_the_reason(monkeypatch, caplog):
    def refuse(name, threads):
        raise ParityError(REASON)

    bundle = SimpleNamespace(path=Path("a/digits.bundle"))
    monkeypatch.setattr(rounds, "candidate_names", lambda bundle: [Way(bundle.path, "openvino", "int8")])
    monkeypatch.setattr(rounds, "Worker", refuse)
    monkeypatch.setattr(rounds, "_cases", lambda *asked: iter([]))
    settings = Settings(data=None, batches=(1,), sizes=(), seconds=1, threads=1)
    found = rounds.measure_bundle(bundle, None, settings)
    assert (found.measurements, found.left_out) == ([], list(report().left_out))
    assert SENTENCE in caplog.text


def test_report_keeps_who_was_left_out_and_one_without_is_read(tmp_path):
    path = tmp_path / "benchmark.json"
    path.write_text(report().text())
    assert BenchmarkReport.read(path).left_out == report().left_out
    document = json.loads(report().text())
    del document["left_out"]
    path.write_text(json.dumps(document))
    assert BenchmarkReport.read(path).left_out == ()


def test_pages_of_benchmark_and_suite_name_who_was_left_out():
    page = page_of_benchmark(report())
    assert SENTENCE in page.summary
    assert SENTENCE in render_markdown(page)
    assert "openvino int8 of digits.bundle is left out." in render_html(page)
    lines = task_lines("digits", "image_classification", report(), 1.0)
    suite = SuiteReport(environment={"threads": 1}, command="benchmark", batch=1, tasks=(lines,), missing={})
    assert SENTENCE in page_of_suite(suite).summary
