"""Figures that the targets of a CPU plan are about, and all that was measured as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peers.plans import Target

EAGER = "eager"
OURS = "perceiver-deploy"


def headline_figures(found: Mapping[str, Any]) -> dict[str, float]:
    """Speed-up of our fastest variant; speed-up, memory and distance to the limit of our fastest INT8.

    A candidate that failed or is wrong has none.
    """
    candidates = {name: row for name, row in found["candidates"].items() if row.get("right")}
    int8 = [row for name, row in candidates.items() if name.startswith(OURS) and row["precision"] == "int8"]
    peers = [row["median"] for name, row in candidates.items() if not name.startswith((OURS, EAGER))]
    if EAGER not in candidates or not int8:
        return {}
    eager, best = candidates[EAGER], min(int8, key=lambda row: row["median"])
    fastest = min(row["median"] for name, row in candidates.items() if name.startswith(OURS))
    figures = {
        "best speed-up": eager["median"] / fastest,
        "int8 speed-up": eager["median"] / best["median"],
        "int8 peak memory over eager's": best["peak_bytes"] / eager["peak_bytes"],
    }
    if peers:
        figures["int8 speed-up over the best peer"] = min(peers) / best["median"]
    if limit := found["limits"].get("int8"):
        figures["int8 limit over int8 seconds"] = limit["seconds"] / best["median"]
    return figures


def judge_targets(targets: tuple[Target, ...], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each target with what was found (None where it was not measured) and whether it was reached."""
    figures = headline_figures(found)
    verdicts = []
    for target in targets:
        value = figures.get(target.figure)
        reached = value is not None and (value >= target.bound if target.at_least else value <= target.bound)
        relation = "at least" if target.at_least else "at most"
        verdicts.append({"figure": target.figure, relation: target.bound, "found": value, "reached": reached})
    return verdicts


def report(model: str, found: Mapping[str, Any]) -> list[str]:
    """Every candidate beside eager, the limits, the targets."""
    eager = found["candidates"].get(EAGER, {}).get("median")
    lines = [f"{model}: {found['threads']} threads, {found['rounds']} rounds, {found['total_seconds']:.0f} s in all"]
    for name, row in found["candidates"].items():
        if "median" not in row or eager is None:
            lines.append(f"  {name}: {row.get('error')}")
            continue
        figures = f"{1000 * row['median']:.2f} ms, {eager / row['median']:.2f}x, {row['peak_bytes'] / 1e9:.2f} GB"
        lines.append(f"  {name}: {figures}, relative L2 {row['relative_l2']}{'' if row['right'] else ', WRONG'}")
    for dtype, limit in found["limits"].items():
        rate = limit["operations_per_second"] / 1e9
        lines.append(f"  limit in {dtype}: {1000 * limit['seconds']:.1f} ms at {rate:.0f} G operations/s")
    for target in found["targets"]:
        relation = "at least" if "at least" in target else "at most"
        value = "not measured" if target["found"] is None else f"{target['found']:.2f}"
        verdict = "reached" if target["reached"] else "MISSED"
        lines.append(f"  {verdict}: {target['figure']} {value}, {relation} {target[relation]:.2f}")
    return lines
