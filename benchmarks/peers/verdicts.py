"""Figures that the targets of a plan are about, whether they were reached, and all of it as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peers.plans import EAGER, ONLY_IN, OURS, Target

RUNTIMES = ("onnxruntime", "openvino")


def headline_figures(rows: Mapping[str, Any]) -> dict[str, float]:
    """Speed-up and memory of our fastest right graph by runtime against eager's, and export time against the peer's."""
    eager = rows.get(EAGER, {}).get("latency", {}).get("torch", {})
    ours = rows.get(OURS, {})
    figures: dict[str, float] = {}
    for runtime in RUNTIMES:
        timings = [rows.get(name, {}).get("latency", {}).get(runtime, {}) for name in (OURS, *ONLY_IN)]
        right = [timing for timing in timings if timing.get("right")]
        if "median" in eager and right:
            found = min(right, key=lambda timing: timing["median"])
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


def report(model: str, found: Mapping[str, Any]) -> list[str]:
    """What was timed, beside eager and the limit; where our export's time goes; the targets."""
    rows, limit = found["rows"], found.get("limit")
    eager = rows[EAGER]["latency"]["torch"]
    lines = [f"{model}: {found['threads']} threads, {found['rounds']} rounds, {found['total_seconds']:.0f} s in all"]
    for exporter, row in rows.items():
        for runtime, timing in row.get("latency", {}).items():
            text = f"{exporter} in {runtime}: "
            if "median" in timing and "median" in eager:
                text += f"{timing['median']:.3f} s, {eager['median'] / timing['median']:.2f}x eager's speed, "
                text += f"{timing['peak_bytes'] / 1e9:.2f} GB, relative L2 {timing['relative_l2']}"
                text += f", {timing['median'] / limit['seconds']:.2f}x the limit" if limit else ""
            else:
                text += timing.get("error", "")
            lines.append("  " + text)
    if limit:
        rate = limit["flops_per_second"] / 1e9
        lines.append(f"  limit: {limit['seconds']:.3f} s for {limit['flops'] / 1e9:.0f} GFLOP, {rate:.0f} GFLOP/s")
    if stages := rows.get(OURS, {}).get("stages"):
        parts = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items())
        lines.append(f"  our export: {rows[OURS]['export_seconds']:.1f} s: {parts}")
    for target in found["targets"]:
        relation = "at least" if "at least" in target else "at most"
        value = "not measured" if target["found"] is None else f"{target['found']:.2f}"
        verdict = "reached" if target["reached"] else "MISSED"
        lines.append(f"  {verdict}: {target['figure']} {value}, {relation} {target[relation]}")
    return lines
