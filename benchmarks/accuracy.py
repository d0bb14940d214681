"""What does reduced precision cost in accuracy, on the test split of every shipped task?

Each shipped checkpoint is exported and converted to fp16, bf16, int8 (the default command) and int8-cpu, calibrated on
its training split. Every variant is run in every runtime here that reads it, beside eager float32 on the same rows, one
thread each. Writes results/accuracy.json after each task; tasks that are there are left out unless they are named, and
judged again in any case.

    python benchmarks/accuracy.py [TASK...]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from perceiver_deploy import convert_bundle, export_model, load
from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.data.datasets import DataSet, load_dataset
from perceiver_deploy.data.metrics import collect_outputs
from perceiver_deploy.evaluate.accuracy.agreement import LEAST_SQNR_DB
from perceiver_deploy.evaluate.accuracy.losses import measure_losses
from perceiver_deploy.evaluate.parity.verdicts import compare
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.model.checkpoints.load import shipped_names
from perceiver_deploy.runtimes.catalogue import installed_runtimes
from perceiver_deploy.statistics import SIGNIFICANT

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
JUDGED = "int8"
POINTS = 0.005
"""What the share of right answers may fall by, or one row, whichever is more."""
BOUNDS = {"px": ("relative", 0.01), "bit": ("relative", 0.01), "dB": ("absolute", 0.5)}
ROUNDING = 1e-9
NEAR_SILENCE = ("audio_reconstruction",)
"""Outputs that PSNR alone judges, because the signal itself is near zero."""


def main() -> None:
    """Measure what is wanted and not there, and judge all that is."""
    torch.set_num_threads(1)
    names = sys.argv[1:] or [name for name in shipped_names() if name not in read()["tasks"]]
    for name in names:
        started = time.perf_counter()
        found = measure(name)
        document = read()
        document["tasks"][name] = {**found, "seconds": time.perf_counter() - started}
        document["tasks"] = dict(sorted(document["tasks"].items()))
        document["environment"] = describe_environment()
        write(document)
    write(read())


def read() -> dict[str, Any]:
    """What was measured so far."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"tasks": {}}


def write(document: dict[str, Any]) -> None:
    """Keep the figures, with what of them is beyond its bound."""
    for name, task in document["tasks"].items():
        for row in task["candidates"]:
            row["failures"] = failures(row)
        judged = [row for row in task["candidates"] if row["variant"] == JUDGED]
        task["failures"] = [f"{JUDGED} in {row['runtime']}: {text}" for row in judged for text in row["failures"]]
        print(name, "; ".join(task["failures"]) or "holds", flush=True)
    RESULTS.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def measure(name: str) -> dict[str, Any]:
    """All candidates of one task beside eager."""
    data = load_dataset(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        export_model(name, path)
        convert_bundle(path, precision="fp16", calibration=name)
        convert_bundle(path, precision="bf16")
        convert_bundle(path, precision="int8", calibration=name)
        convert_bundle(path, precision="int8", calibration=name, target="cpu")
        eager = run(path, "torch", "fp32", data)
        rows = [
            candidate(path, runtime, variant, data, eager)
            for variant, described in Bundle.open(path).manifest.variants.items()
            for runtime in installed_runtimes()
            if runtime in described.runtimes
        ]
    return {"rows": len(data.test), "candidates": rows}


def run(path: Path, runtime: str, variant: str, data: DataSet) -> Arrays:
    """Outputs for the test split."""
    with load(path, runtime=runtime, variant=variant, threads=1) as session:
        return collect_outputs(session.run, data.test)


def candidate(path: Path, runtime: str, variant: str, data: DataSet, eager: Arrays) -> dict[str, Any]:
    """What one variant lost in one runtime."""
    outputs = run(path, runtime, variant, data)
    return {
        "variant": variant,
        "runtime": runtime,
        "metrics": [drop.to_json() for drop in measure_losses(outputs, eager, data.test, data.metrics)],
        "outputs": {output: compare(outputs[output], eager[output]).to_json() for output in eager},
    }


def failures(row: dict[str, Any]) -> list[str]:
    """What of a candidate is beyond its bound."""
    found = []
    for metric in row["metrics"]:
        if metric["test"] is not None and metric["test"]["p_value"] < SIGNIFICANT:
            found.append(f"{metric['metric']}: McNemar's p is {metric['test']['p_value']:.3f}")
        if metric["unit"] == "%":
            bound = max(POINTS, 1 / metric["examples"])
        else:
            kind, amount = BOUNDS[metric["unit"]]
            bound = amount * abs(metric["eager"]) if kind == "relative" else amount
        if metric["drop"] is None:
            found.append(f"{metric['metric']}: everything is lost")
        elif metric["drop"] > bound + ROUNDING:
            found.append(f"{metric['metric']}: a drop of {metric['drop']:.4f}, expected at most {bound:.4f}")
    for output, figures in row["outputs"].items():
        if figures["non_finite"]:
            found.append(f"{output}: {figures['non_finite']} values are not finite")
        if output not in NEAR_SILENCE and figures["sqnr_db"] is not None and figures["sqnr_db"] < LEAST_SQNR_DB:
            found.append(f"{output}: SQNR {figures['sqnr_db']:.1f} dB, expected at least {LEAST_SQNR_DB:.0f} dB")
    return found


if __name__ == "__main__":
    main()
