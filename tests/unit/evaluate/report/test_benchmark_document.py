"""The report of a benchmark: what it says, and what is refused when it is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import perceiver_deploy
from perceiver_deploy.errors import InputError
from perceiver_deploy.evaluate.report.benchmark_document import (
    BenchmarkReport,
    CaseRanking,
    compact_json,
    report_schema,
)
from perceiver_deploy.evaluate.report.suite_document import suite_schema
from tests.helpers.benchmark_reports import make_report


def test_published_schema_is_up_to_date():
    published = Path(perceiver_deploy.__file__).with_name("benchmark.schema.json").read_text()
    assert published == report_schema(), "run: make schema"
    published = Path(perceiver_deploy.__file__).with_name("modalities.schema.json").read_text()
    assert published == suite_schema(), "run: make schema"


def test_report_is_read_as_it_was_written(tmp_path):
    report = make_report()
    path = tmp_path / "benchmark.json"
    path.write_text(report.text())
    assert BenchmarkReport.read(path) == report


def test_compact_json_keeps_lists_of_numbers_on_a_line_and_loses_nothing():
    document = {"samples": [0.5, 1e-5, None, -3], "texts": ["a [ 1, 2 ] b"], "empty": [], "nested": [[1, 2], {"a": []}]}
    text = compact_json(document)
    assert json.loads(text) == document
    assert '"samples": [0.5, 1e-05, null, -3]' in text


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "Invalid JSON"), ('{"schema_version": 2}', "schema_version"), ('{"measurements": []}', "environment")],
)
def test_what_is_no_report_is_refused_with_the_entry_that_is_wrong(tmp_path, content, words):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        BenchmarkReport.read(path)


def test_absent_report_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        BenchmarkReport.read(tmp_path / "absent.json")


def test_noisy_ranking_names_nobody_as_the_fastest():
    noisy = CaseRanking(bundle="a/b.bundle", batch=1, sizes={}, fastest="b", tied=("a", "b"), noisy=True)
    assert noisy.text().startswith(
        "b.bundle, batch 1: not ranked, the machine is too noisy. a and b are statistically tied"
    )
    assert "fastest" not in noisy.text()
    clear = CaseRanking(bundle="b.bundle", batch=2, sizes={"length": 9}, fastest="a", tied=("a",), noisy=False)
    assert clear.text() == "b.bundle, batch 2, length 9: a is fastest."
