"""Figures that the targets of a plan are about, and whether they were reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peers.plans import EAGER, OURS, Target

RUNTIMES = ("onnxruntime", "openvino")


def headline_figures(rows: Mapping[str, Any]) -> dict[str, float]:
    """Speed-ups and memory of ours against eager's by runtime, and export time against the peer's."""
    eager = rows.get(EAGER, {}).get("latency", {}).get("torch", {})
    ours = rows.get(OURS, {})
    figures: dict[str, float] = {}
    for runtime in RUNTIMES:
        found = ours.get("latency", {}).get(runtime, {})
        if "median" in eager and "median" in found:
            figures[f"{runtime} speed-up"] = eager["median"] / found["median"]
            figures[f"{runtime} peak memory over eager's"] = found["peak_bytes"] / eager["peak_bytes"]
    speed_ups = [figure for name, figure in figures.items() if name.endswith("speed-up")]
    if speed_ups:
        figures["best speed-up"] = max(speed_ups)
    static = rows.get("dynamo-static", {})
    if "export_seconds" in static and "export_seconds" in ours:
        figures["export seconds over dynamo-static's"] = ours["export_seconds"] / static["export_seconds"]
    return figures


def judge_targets(targets: Sequence[Target], rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each target with what was found (None where it was not measured) and whether it was reached."""
    figures = headline_figures(rows)
    verdicts = []
    for target in targets:
        found = figures.get(target.figure)
        reached = found is not None and (found >= target.bound if target.at_least else found <= target.bound)
        relation = "at least" if target.at_least else "at most"
        verdicts.append({"figure": target.figure, relation: target.bound, "found": found, "reached": reached})
    return verdicts
