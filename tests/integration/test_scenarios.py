"""MLPerf's scenarios by its real LoadGen, on a small model, for moments."""

from __future__ import annotations

import sys

import pytest

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.errors import MissingError
from perceiver_deploy.evaluate.report.benchmark_page import page_of_benchmark
from perceiver_deploy.evaluate.speed.scenarios import run_scenarios
from perceiver_deploy.runtimes.way import Way
from tests.helpers.benchmark_reports import make_report
from tests.helpers.factories import text_inputs


@pytest.fixture
def asked(shared_bundle):
    path = shared_bundle("text_classification")
    stage = Bundle.open(path).manifest.stages["full"]
    return Way(path, "onnxruntime", "fp32"), 1, text_inputs(2, 11), stage


def test_each_scenario_has_the_figures_that_its_rules_look_at(asked):
    single, multi, offline, server = found = run_scenarios(*asked, 0.1, 30)
    assert [scenario.name for scenario in found] == ["SingleStream", "MultiStream", "Offline", "Server"]
    for scenario in (single, multi, server):
        assert 0 < scenario.p50 <= scenario.p90 <= scenario.p99
    assert (offline.p50, offline.p99) == (None, None)
    assert multi.per_second == pytest.approx(8 / multi.p50)  # eight samples a query
    assert min(single.per_second, offline.per_second, server.per_second) > 0
    assert (server.bound, server.kept) == (30, True)
    report = make_report()
    measured = tuple(one.model_copy(update={"scenarios": found}) for one in report.measurements)
    (table,) = [
        table
        for table in page_of_benchmark(report.model_copy(update={"measurements": measured})).tables
        if table.title.startswith("MLPerf")
    ]
    assert table.rows[0][1] == f"{1000 * single.p90:.2f}"
    assert table.rows[0][4].startswith(f"{server.per_second:.1f} (30000.00)")


def test_a_bound_that_no_rate_keeps_is_said(asked, monkeypatch):
    monkeypatch.setattr("perceiver_deploy.evaluate.speed.scenarios.LOADS", (0.1,))
    *_, server = run_scenarios(*asked, 0.05, 1e-7)
    assert server.kept is False


def test_without_loadgen_the_extra_is_named(asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(MissingError, match=r"perceiver-deploy\[loadgen\]"):
        run_scenarios(*asked, 0.1, None)
