"""INT8 by the default command keeps the accuracy of every shipped task, by the bounds of benchmarks/accuracy.py."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

import pytest

from perceiver_deploy import convert_bundle
from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.model.checkpoints.load import shipped_names

ROOT = Path(__file__).parents[2]
RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture
def program(monkeypatch):
    """benchmarks/accuracy.py, which has the bounds."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("accuracy")


@pytest.fixture
def row(program):
    """What was measured of INT8 on digits in onnxruntime; the test may change it."""
    rows = program.read()["tasks"]["digits"]["candidates"]
    return copy.deepcopy(next(row for row in rows if (row["variant"], row["runtime"]) == ("int8", "onnxruntime")))


def test_measured_figures_are_of_every_shipped_task_in_every_precision_and_runtime(program):
    tasks = program.read()["tasks"]
    assert set(tasks) == set(shipped_names())
    in_both = {(variant, runtime) for variant in ("fp32", "fp16", "int8", "int8-cpu") for runtime in RUNTIMES}
    for task in tasks.values():
        assert {(row["variant"], row["runtime"]) for row in task["candidates"]} == {*in_both, ("bf16", "openvino")}


@pytest.mark.parametrize("name", shipped_names())
def test_measured_int8_keeps_the_stated_bounds(program, name):
    judged = [row for row in program.read()["tasks"][name]["candidates"] if row["variant"] == program.JUDGED]
    assert {row["runtime"]: program.failures(row) for row in judged} == {runtime: [] for runtime in RUNTIMES}


@pytest.mark.full  # of digits in test_convert.py, in the ordinary suite
@pytest.mark.parametrize("name", sorted({*shipped_names()} - {"digits"}))
def test_int8_made_now_keeps_the_stated_bounds(program, copied_bundle, name):
    bundle, data = copied_bundle(name), load_dataset(name)
    convert_bundle(bundle, precision="int8", calibration=name)
    eager = program.run(bundle, "torch", "fp32", data)
    for runtime in RUNTIMES:
        assert program.failures(program.candidate(bundle, runtime, "int8", data, eager)) == [], runtime


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("metrics", {"drop": 0.0051}, "a drop of 0.0051, expected at most 0.0050"),
        ("metrics", {"unit": "px", "eager": 1.0, "drop": 0.0101}, "a drop of 0.0101, expected at most 0.0100"),
        ("metrics", {"unit": "bit", "eager": 2.0, "drop": 0.0201}, "a drop of 0.0201, expected at most 0.0200"),
        ("metrics", {"unit": "dB", "eager": 30.0, "drop": 0.51}, "a drop of 0.5100, expected at most 0.5000"),
        ("metrics", {"drop": None}, "everything is lost"),
        ("metrics", {"test": {"lost": 6, "won": 0, "p_value": 0.03125}}, "McNemar's p is 0.031"),
        ("outputs", {"sqnr_db": 19.9}, "SQNR 19.9 dB, expected at least 20 dB"),
        ("outputs", {"sqnr_db": None, "non_finite": 3}, "3 values are not finite"),
    ],
)
def test_what_is_beyond_its_bound_is_named(program, row, place, change, message):
    assert program.failures(row) == []
    (row[place][0] if place == "metrics" else row[place]["logits"]).update(change)
    (failure,) = program.failures(row)
    assert message in failure


def test_one_row_of_few_may_be_lost(program, row):
    row["metrics"][0].update(examples=70, drop=1 / 70)
    assert program.failures(row) == []
