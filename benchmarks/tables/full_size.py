"""The published full sizes: parity, operations, and speed beside peers."""

from __future__ import annotations

from typing import Any

from tables import table


def full_size_parity(document: dict[str, Any]) -> str:
    """Relative L2 against transformers, and of the exported graph against its bound."""
    header = ["class", "parameters", "float64", "float32", "ONNX, worst case / its bound"]
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
    return table(["class", "transformers", "graph, --no-reassociate", "graph", "ratio", "--attention rows"], rows)


def export_peers(document: dict[str, Any]) -> str:
    """Each exporter's graph: right at other sizes?, size, seconds, and speed-up and peak memory beside eager's."""
    header = ["model", "exporter", "right at 3 other sizes", "nodes", "size", "export", "onnxruntime", "OpenVINO"]
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
    header = ["model", "eager", "ours, fp32", "ours, INT8", "fastest peer", "INT8's matrix products alone", "memory"]
    lines = []
    for model, found in document["models"].items():
        right = {name: row for name, row in found["candidates"].items() if row["right"]}
        eager = right["eager"]
        ours = {name: row for name, row in right.items() if name.startswith("perceiver-deploy")}
        peers = {name: row for name, row in right.items() if name not in ours and name != "eager"}
        fp32, int8 = (
            min(
                (item for item in ours.items() if item[1]["precision"] == precision), key=lambda item: item[1]["median"]
            )
            for precision in ("fp32", "int8")
        )
        peer = min(peers.items(), key=lambda item: item[1]["median"], default=None)
        limit = found["limits"].get("int8")
        lines.append(
            [
                model,
                f"{1000 * eager['median']:,.1f} ms",
                cpu_cell(*fp32, eager),
                cpu_cell(*int8, eager),
                cpu_cell(*peer, eager) if peer else "",
                f"{1000 * limit['seconds']:,.0f} ms, {limit['seconds'] / int8[1]['median']:.0%} of INT8's time"
                if limit
                else "",
                f"{int8[1]['peak_bytes'] / eager['peak_bytes']:.2f}",
            ]
        )
    return table(header, lines)


def cpu_cell(name: str, row: dict[str, Any], eager: dict[str, Any]) -> str:
    """Milliseconds, speed-up, and what it is."""
    what = name.removeprefix("perceiver-deploy ")
    return f"{1000 * row['median']:,.1f} ms, {eager['median'] / row['median']:.2f}x ({what})"
