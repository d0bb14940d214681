"""Outputs that are not finite have lost everything: in benchmark, in `--against`, in the contract and in the suite."""

from __future__ import annotations

import json

import numpy as np
import pytest

from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.metrics import TOP1
from perceiver_deploy.data.split import Split
from perceiver_deploy.evaluate.accuracy.agreement import judge_outputs
from perceiver_deploy.evaluate.accuracy.contract import Judgement, MaxDrop
from perceiver_deploy.evaluate.accuracy.figures import accuracy_figures
from perceiver_deploy.evaluate.report.benchmark_document import BenchmarkReport
from perceiver_deploy.evaluate.report.benchmark_page import page_of_benchmark
from perceiver_deploy.evaluate.report.plots import benchmark_plots
from perceiver_deploy.evaluate.report.regression import compare_reports
from perceiver_deploy.evaluate.report.suite_document import task_lines
from tests.helpers.benchmark_reports import make_report

ROWS = 12
EAGER = {"logits": np.eye(3, dtype=np.float32)[np.zeros(ROWS, int)]}
TEST = Split({"pixels": np.zeros(ROWS)}, np.zeros(ROWS, int))
"""Every target is class 0, which is where `argmax` finds the largest of NaNs."""


def data_set():
    return DataSet("zeros", "image_classification", "made", "none", None, None, TEST, TEST)


def lost_outputs(value, rows=ROWS):
    logits = EAGER["logits"].copy()
    logits[:rows] = value
    return {"logits": logits}


def report_of(outputs):
    """A report whose second candidate has these outputs."""
    report = make_report()
    accuracies = [accuracy_figures(each, EAGER, data_set()) for each in (EAGER, outputs)]
    pairs = zip(report.measurements, accuracies, strict=True)
    return report.model_copy(update={"measurements": tuple(m.model_copy(update={"accuracy": a}) for m, a in pairs)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_benchmark_counts_no_answer_among_values_that_are_not_finite(value, rows):
    (metric,) = accuracy_figures(lost_outputs(value, rows), EAGER, data_set()).metrics
    assert (metric.value, metric.interval, metric.drop, metric.drop_interval) == (None, None, None, None)
    assert (metric.significant, metric.worse, metric.examples) == (True, True, ROWS)
    assert metric.scores == (None,) * rows + (1.0,) * (ROWS - rows)
    assert (metric.value_text(), metric.drop_text()) == ("not finite", "everything")
    (same,) = accuracy_figures(EAGER, EAGER, data_set()).metrics
    assert (same.value, same.drop, same.significant) == (1.0, 0.0, False)


def test_values_that_are_not_finite_in_eager_too_are_not_lost():
    eager = {"logits": np.where(np.eye(3)[np.zeros(ROWS, int)] == 1, 1.0, -np.inf)}
    (metric,) = accuracy_figures(eager, eager, data_set()).metrics
    assert (metric.value, metric.drop) == (1.0, 0.0)


def test_report_with_lost_outputs_is_written_read_shown_and_drawn(tmp_path):
    report = report_of(lost_outputs(np.nan))
    path = tmp_path / "benchmark.json"
    path.write_text(report.text())
    assert BenchmarkReport.read(path) == report
    document = json.loads(report.text())["measurements"][1]["accuracy"]["metrics"][0]
    assert (document["value"], document["drop"]) == (None, None)
    page = page_of_benchmark(report)
    assert any("onnxruntime fp32 loses everything of top-1 accuracy" in sentence for sentence in page.summary)
    assert "accuracy_by_speed" in [plot.name for plot in benchmark_plots(report)]


def test_against_an_earlier_run_outputs_that_are_not_finite_are_worse():
    good, bad = report_of(EAGER), report_of(lost_outputs(np.nan))
    for before, now, verdict in ((good, bad, "worse"), (bad, bad, "same"), (bad, good, "better"), (good, good, "same")):
        (found,) = [
            d
            for d in compare_reports(before, now).differences
            if d.figure == "top-1 accuracy" and "onnxruntime" in d.candidate
        ]
        assert found.verdict == verdict
    assert (found.before, found.now) == ("100.00 %", "100.00 %")


@pytest.mark.parametrize("metrics", [(TOP1,), None])
def test_contract_is_broken_by_one_example_that_is_not_finite(metrics):
    judged = Judgement({"openvino": judge_outputs(lost_outputs(np.nan, 1), EAGER, TEST, metrics)})
    assert judged.breaches(MaxDrop(100))
    assert judged.excess(MaxDrop(100)) == np.inf


def test_suite_shows_that_everything_is_lost():
    (line,) = task_lines("zeros", "image_classification", report_of(lost_outputs(np.nan)), 1.0).variants
    assert line.metrics[0].worse
    assert line.metrics[0].drop_text() == "everything"
