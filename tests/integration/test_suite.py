"""The suite of shipped tasks: one table, resumed where it stopped, going on where a data set is missing."""

from __future__ import annotations

import json

import pytest

from perceiver_deploy.errors import InputError, MissingError, UsageError
from perceiver_deploy.pipeline.benchmark.suite import run_suite

SETTINGS = {"batches": [2], "seconds": 0.02, "threads": 1}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A suite of two tasks, of which one has no data: its folder and result."""
    folder = tmp_path_factory.mktemp("suite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERCEIVER_DEPLOY_CACHE", str(folder / "empty cache"))
        return folder, run_suite(folder, names=["languages", "breast-cancer"], **SETTINGS)


@pytest.mark.full
def test_suite_measures_what_it_can(suite):
    _, result = suite
    assert [task.name for task in result.report.tasks] == ["breast-cancer"]
    assert [*result.report.missing] == ["languages"]


def test_suite_says_how_to_fetch_a_missing_data_set_and_its_exit_code_tells(tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEIVER_DEPLOY_CACHE", str(tmp_path / "empty cache"))
    result = run_suite(tmp_path, names=["languages"], **SETTINGS)
    assert "perceiver-deploy data fetch asterisk-en" in result.report.missing["languages"]
    assert isinstance(result.failure, MissingError)
    assert result.failure.exit_code == 5
    assert "1 of the suite's tasks were not measured (languages)" in str(result.failure)


@pytest.mark.full
def test_table_has_metric_drop_speed_up_and_size_of_every_variant(suite):
    folder, result = suite
    (task,) = result.report.tasks
    assert [line.variant for line in task.variants] == ["fp32", "bf16", "int8"]
    assert task.eager.metrics[0].value >= 0.95
    assert task.examples == 171
    first, second = (line for line in (folder / "modalities.md").read_text().splitlines() if "| top-1" in line)
    assert first.startswith("| breast-cancer | entities | top-1 accuracy | 97.08 % |")
    assert second.startswith(
        "| breast-cancer | entities | top-1 accuracy of entities |"
    )  # sortable, so nothing is left out
    assert first.count("x (") == 3
    document = json.loads((folder / "modalities.json").read_text())
    assert document["tasks"][0]["variants"][2]["metrics"][0]["drop"] <= 0.03
    assert json.loads((folder / "breast-cancer" / "benchmark.json").read_text())["settings"]["batches"] == [2]


@pytest.mark.full
def test_suite_beside_itself_has_no_regression_and_beside_one_with_smaller_files_it_fails(suite):
    folder, before = suite
    again = run_suite(folder, names=["breast-cancer"], against=folder / "modalities.json", **SETTINGS)
    assert again.report.comparison is not None
    assert not again.report.comparison.regressions
    path = folder / "breast-cancer" / "benchmark.json"
    kept = path.read_text()
    report = json.loads(kept)
    int8 = next(m for m in report["measurements"] if m["name"] == "onnxruntime int8")
    int8["file_bytes"] *= 2
    earlier = folder / "earlier"
    (earlier / "breast-cancer").mkdir(parents=True)
    (earlier / "breast-cancer" / "benchmark.json").write_text(kept)
    (earlier / "modalities.json").write_text(before.report.text())
    path.write_text(json.dumps(report))
    worse = run_suite(folder, names=["breast-cancer"], against=earlier / "modalities.json", **SETTINGS)
    path.write_text(kept)
    assert worse.failure is not None
    assert worse.failure.exit_code == 4
    assert "onnxruntime int8, size on disk" in str(worse.failure)


def test_suite_against_what_is_no_suite_is_refused_before_measuring(tmp_path):
    (tmp_path / "benchmark.json").write_text("{}")
    with pytest.raises(InputError, match="is not a report of `perceiver-deploy benchmark --suite`"):
        run_suite(tmp_path / "new", names=["breast-cancer"], against=tmp_path / "benchmark.json", **SETTINGS)


@pytest.mark.full
def test_suite_that_was_stopped_goes_on_with_what_is_not_measured(suite):
    folder, before = suite
    bundle = folder / "breast-cancer" / "breast-cancer.bundle"
    made = bundle.stat().st_mtime_ns
    again = run_suite(folder, names=["breast-cancer"], **SETTINGS)
    assert again.report.tasks == before.report.tasks
    assert bundle.stat().st_mtime_ns == made
    assert again.failure is None


def test_suite_refuses_a_task_that_is_not_shipped(tmp_path):
    with pytest.raises(UsageError, match="There is no shipped task 'chess'"):
        run_suite(tmp_path, names=["chess"])
