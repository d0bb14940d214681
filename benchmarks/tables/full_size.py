"""The published full sizes: parity, operations, and speed beside peers."""

from __future__ import annotations

from typing import Any

from tables import table

OURS = "perceiver-deploy"
_STATIC = ", static shapes"


def full_size_parity(document: dict[str, Any]) -> str:
    """Relative L2 against transformers, and of the exported graph against its bound."""
    header = [
        "class",
        "parameters",
        "float64, relative L2",
        "float32, relative L2",
        "ONNX, relative L2: worst case / bound",
    ]
    rows = []
    for name, figures in document["classes"].items():
        worst = max(figures["gate"], key=lambda verdict: verdict["relative_l2"] / verdict["bound"])
        rows.append(
            [
                name.removeprefix("Perceiver"),
                f"{figures['parameters']:,}",
                f"{figures['float64']:.1e}",
                f"{figures['float32']:.1e}",
                f"{worst['relative_l2']:.1e} / {worst['bound']:.1e}",
            ]
        )
    return table(header, rows)


def graph_flops(document: dict[str, Any]) -> str:
    """GFLOP of a forward: transformers', our graph as written, with the algebra, and row by row if that is less."""
    rows = [
        [
            name.removeprefix("Perceiver"),
            f"{figures['huggingface_gflop']:,.1f}",
            f"{figures['plain_gflop']:,.1f}",
            f"{figures['gflop']:,.1f}",
            f"{figures['ratio']:.3f}",
            f"{figures['rows_gflop']:,.1f}" if figures.get("rows_gflop", figures["gflop"]) < figures["gflop"] else "",
        ]
        for name, figures in document["configurations"].items()
        if "huggingface_gflop" in figures
    ]
    graphs = ["graph, --no-reassociate, GFLOP", "graph, GFLOP", "graph / transformers", "--attention rows, GFLOP"]
    return table(["class", "transformers, GFLOP", *graphs], rows)


def export_peers(document: dict[str, Any]) -> str:
    """Each exporter's graph: right at other sizes?, size, seconds, and speed-up and peak memory beside eager's."""
    header = ["model", "exporter", "right at 3 other sizes", "nodes", "size", "export time", "onnxruntime", "OpenVINO"]
    lines = []
    for model, found in document["models"].items():
        eager = found["rows"]["huggingface-eager"]["latency"]["torch"]
        lines.append([model, "none: Hugging Face eager", *[""] * 4, *[latency_cell(eager, eager)] * 2])
        for exporter, row in found["rows"].items():
            if exporter == "huggingface-eager":
                continue
            if not row["exports"]:
                lines.append(["", exporter, "not exported", *[""] * 5])
                continue
            latency = row.get("latency", {})
            lines.append(
                [
                    "",
                    exporter,
                    f"{sum(check['right'] for check in row['checks'][1:])} of 3",
                    f"{row['nodes']:,}",
                    f"{row['bytes'] / 1e6:.0f} MB",
                    f"{row['export_seconds']:.0f} s",
                    *(latency_cell(latency.get(runtime), eager) for runtime in ("onnxruntime", "openvino")),
                ]
            )
        if limit := found.get("limit"):
            speed = f"{limit['seconds']:.2f} s, {eager['median'] / limit['seconds']:.2f}x"
            lines.append(["", "limit: our graph's matrix products alone", *[""] * 4, speed, speed])
    return table(header, lines)


def latency_cell(latency: dict[str, Any] | None, eager: dict[str, Any]) -> str:
    """Median seconds, speed-up and peak memory; empty where it was not timed."""
    if latency is None:
        return ""
    if "median" not in latency or not latency["right"]:
        return "failed"
    median = latency["median"]
    return f"{median:.2f} s, {eager['median'] / median:.2f}x, {latency['peak_bytes'] / 1e9:.1f} GB"


def cpu_peers(document: dict[str, Any]) -> str:
    """Our fastest float32 and INT8 on the CPU beside eager and the fastest peer, and how near INT8 is to its limit."""
    header = [
        "model",
        "eager, ms",
        "ours in fp32, ms (speed-up)",
        "ours in INT8, ms (speed-up)",
        "fastest peer, ms (speed-up)",
        "INT8's matrix products alone, ms (share of INT8's time)",
        "peak memory, INT8 / eager",
    ]
    lines = []
    for model, found in full_size_models(document).items():
        eager, int8 = found["candidates"]["eager"], own(found, "int8")
        limit = found["limits"]["int8"]["seconds"]
        lines.append(
            [
                f"`{model}`",
                _milliseconds(eager["median"]),
                cpu_cell(*own(found, "fp32"), eager),
                cpu_cell(*int8, eager),
                cpu_cell(*min(peers(found).items(), key=_median), eager),
                f"{_milliseconds(limit)} ({limit / int8[1]['median']:.0%})",
                f"{int8[1]['peak_bytes'] / eager['peak_bytes']:.2f}",
            ]
        )
    return table(header, lines)


def static_shapes(document: dict[str, Any]) -> str:
    """The shipped models of the same file: our fastest float32 and INT8, with dynamic and with static shapes."""
    header = ["checkpoint", "eager, ms"]
    header += [f"{name}, {shapes}, ms (speed-up)" for name in ("fp32", "INT8") for shapes in ("dynamic", "static")]
    header.append("peak memory, INT8 / eager")
    lines = []
    for model, found in document["models"].items():
        if model in full_size_models(document):
            continue
        eager = found["candidates"]["eager"]
        cells = [
            cpu_cell(*own(found, precision, static=static), eager)
            for precision in ("fp32", "int8")
            for static in (False, True)
        ]
        memory = own(found, "int8")[1]["peak_bytes"] / eager["peak_bytes"]
        lines.append([f"`{model}`", _milliseconds(eager["median"]), *cells, f"{memory:.2f}"])
    return table(header, lines)


def full_size_models(document: dict[str, Any]) -> dict[str, Any]:
    """Models of published sizes: those that peers were measured on."""
    return {name: found for name, found in document["models"].items() if peers(found)}


def peers(found: dict[str, Any]) -> dict[str, Any]:
    """Other ways to reduce precision, as far as they gave the right outputs."""
    return {
        name: row
        for name, row in found["candidates"].items()
        if row["right"] and name != "eager" and not name.startswith(OURS)
    }


def own(found: dict[str, Any], precision: str, *, static: bool | None = None) -> tuple[str, dict[str, Any]]:
    """Name and row of our fastest in a precision; with `static`, among those with static shapes or without."""
    rows = {
        name: row
        for name, row in found["candidates"].items()
        if row["right"] and name.startswith(OURS) and row["precision"] == precision
    }
    return min(
        ((name, row) for name, row in rows.items() if static in (None, _STATIC in name)),
        key=_median,
    )


def cpu_cell(name: str, row: dict[str, Any], eager: dict[str, Any]) -> str:
    """Milliseconds, speed-up, and which variant in which runtime."""
    way = name.removeprefix(f"{OURS} ").replace(_STATIC, "")
    return f"{_milliseconds(row['median'])} ({eager['median'] / row['median']:.2f}x), {way}"


def _milliseconds(seconds: float) -> str:
    """Whole milliseconds, below ten of them with two decimals."""
    return f"{1000 * seconds:,.0f}" if seconds >= 0.01 else f"{1000 * seconds:.2f}"


def _median(item: tuple[str, dict[str, Any]]) -> float:
    median: float = item[1]["median"]
    return median
