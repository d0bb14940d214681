"""Tables of what depends on the processor: saturation, conformance, speed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tables import table
from tables.calibration import sqnr_cell

_SCHEMES = ("all levels", "seven bits", "even pairs", "safe")
_VARIANTS = ("int8", "int8-cpu")


def saturation(document: dict[str, Any]) -> str:
    """SQNR by how the scales of weights are chosen, and of INT8 weights alone."""
    rows = []
    for name, found in sorted(document["models"].items()):
        cells = [" / ".join(sqnr_cell(found[v][scheme]["sqnr_db"]) for v in _VARIANTS) for scheme in _SCHEMES]
        rows.append([name, *cells, sqnr_cell(found["int8-weights"]["weights alone"]["sqnr_db"])])
    return table(["checkpoint, SQNR in dB", *_SCHEMES, "weights alone"], rows)


def conformance(document: dict[str, Any]) -> str:
    """By variant and runtime, the largest distances over all models and golden samples, on each kind of processor."""
    kinds = [*document]
    names = dict.fromkeys(name for kind in kinds for found in document[kind]["models"].values() for name in found)
    rows = [[name, *(_conformance_cell(document[kind]["models"], name) for kind in kinds)] for name in names]
    header = [f"{kind}{', CPUID masked' * document[kind]['masked']}" for kind in kinds]
    return table(["variant and runtime", *header], rows)


def _conformance_cell(models: dict[str, Any], name: str) -> str:
    found = [model[name] for model in models.values() if name in model]
    if not found:
        return ""
    off_eager = max(row["off_eager"] or 0.0 for row in found)
    known = [row for row in found if row["off_graph"] is not None]
    passed = sum(row["passed"] for row in found)
    verdict = f"{passed} of {len(found)} pass"
    if not known:
        return f"{off_eager:.1e} off eager; {verdict}"
    share = max(row["off_graph"] / row["bound"] for row in known)
    off_graph = max(row["off_graph"] for row in known)
    return f"{off_eager:.1e} off eager, {off_graph:.1e} off its graph ({share:.0%} of the bound); {verdict}"


def speed(document: dict[str, Any]) -> str:
    """Each variant in each runtime beside Hugging Face eager, by processor and model."""
    rows = []
    for kind, entry in document.items():
        for model, name, row in _candidates(entry):
            size = f"{row['stored_bytes'] / 1e6:,.0f} MB" if "stored_bytes" in row else ""
            low, high = row["speed_up_interval"]
            rows.append(
                [
                    f"{kind}{', CPUID masked' * entry['masked']}",
                    model,
                    name,
                    f"{1000 * row['median']:,.0f} ms",
                    f"{row['speed_up']:.2f}x ({low:.2f} to {high:.2f})",
                    f"{row['peak_bytes'] / 1e9:.2f} GB",
                    size,
                    f"{row['off_eager']:.1e}",
                ]
            )
    header = [
        "processor",
        "model",
        "runtime and variant",
        "batch 1",
        "speed-up (95 %)",
        "peak memory",
        "size",
        "off eager",
    ]
    return table(header, rows)


def weights_only(document: dict[str, Any]) -> str:
    """INT8 weights beside fp32 on the processor that was measured first."""
    entry = next(iter(document.values()))
    rows = [
        [
            model,
            name,
            f"{1000 * row['median']:,.0f} ms",
            f"{row['peak_bytes'] / 1e9:.2f} GB",
            f"{row['stored_bytes'] / 1e6:,.0f} MB",
            f"{row['off_eager']:.1e}",
        ]
        for model, name, row in _candidates(entry)
        if name.endswith((" fp32", " int8-weights"))
    ]
    return table(["full size", "runtime and variant", "batch 1, 2 threads", "peak memory", "size", "off eager"], rows)


def _candidates(entry: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Model, name and figures of each candidate, the fastest first."""
    for model, found in entry["models"].items():
        for name, row in sorted(found["candidates"].items(), key=lambda item: item[1]["median"]):
            yield model, name, row
