"""benchmarks/export_peers.py measures a small model, keeps what it did not measure, and records a peer that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KEPT = {"exports": False, "error": "measured before"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """What the program printed, and what it made of a file with rows of ours, another exporter and another model."""
    output = tmp_path_factory.mktemp("peers") / "results.json"
    before = {"flow": {"rows": {"dynamo-static": KEPT, "perceiver-deploy": KEPT}}, "conv": {"rows": {}}}
    output.write_text(json.dumps({"models": before}))
    program = [sys.executable, ROOT / "benchmarks/export_peers.py", "flow", "--small", "--threads", "1"]
    result = subprocess.run(
        [*program, "--output", output, "--exporters", "optimum,perceiver-deploy"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout, json.loads(output.read_text())["models"]


@pytest.fixture(scope="module")
def found(finished):
    return finished[1]["flow"]


@pytest.fixture(scope="module")
def rows(found):
    return found["rows"]


def test_our_row_has_every_figure_and_is_right_at_all_sizes(rows):
    row = rows["perceiver-deploy"]
    assert row["exports"]
    assert [check["right"] for check in row["checks"]] == [True] * 4
    assert len({tuple(check["sizes"].values()) for check in row["checks"]}) == 4
    assert set(row["stages"]) == {"torch.export", "translation", "passes", "save"}
    assert sum(row["stages"].values()) == pytest.approx(row["export_seconds"], rel=0.01)
    assert row["nodes"] > 0
    assert row["bytes"] > 0


def test_graph_is_timed_beside_eager_in_both_runtimes_and_its_timed_outputs_are_right(found, rows):
    timings = {"eager": rows["huggingface-eager"]["latency"]["torch"], **rows["perceiver-deploy"]["latency"]}
    assert set(timings) == {"eager", "onnxruntime", "openvino"}
    for timing in timings.values():
        assert timing["right"]
        assert len(timing["samples"]) == found["rounds"]
        assert min(timing["samples"]) <= timing["median"] <= max(timing["samples"])
        assert timing["peak_bytes"] > 10e6  # more than an interpreter


def test_limit_counts_the_products_of_the_graph(found):
    limit = found["limit"]
    assert limit["flops"] / limit["seconds"] == pytest.approx(limit["flops_per_second"])
    # Each of 12 x 16 pixels is attended to by 16 latents in the encoder and attends to them in the decoder.
    assert limit["flops"] > 2 * 2 * 16 * 12 * 16 * 322


def test_peer_that_cannot_export_is_recorded_with_its_reason(rows):
    assert rows["optimum"] == {"exports": False, "error": "optimum-onnx has no task for PerceiverForOpticalFlow"}


def test_targets_are_judged_by_the_measured_figures_and_printed(finished, found, rows):
    eager = rows["huggingface-eager"]["latency"]["torch"]["median"]
    best = max(eager / timing["median"] for timing in rows["perceiver-deploy"]["latency"].values())
    target = next(target for target in found["targets"] if target["figure"] == "best speed-up")
    assert target["found"] == pytest.approx(best)
    assert target["reached"] == (best >= target["at least"])
    verdict = "reached" if target["reached"] else "MISSED"
    assert f"{verdict}: best speed-up {best:.2f}, at least 4.0" in finished[0]


def test_rows_and_models_that_were_not_run_are_kept(finished, rows):
    assert rows["dynamo-static"] == KEPT
    assert finished[1]["conv"] == {"rows": {}}
