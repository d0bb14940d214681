"""Write the tables of README and docs from the figures in results/ and beside the shipped checkpoints.

With --check, say whether they agree instead.

python benchmarks/readme_tables.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perceiver_deploy.data.metrics import format_value
from perceiver_deploy.model.checkpoints.loading import SHIPPED, shipped_names

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]


def digits(document: dict[str, Any]) -> str:
    """Accuracy and speed of the shipped digits model."""
    measurements = document["measurements"]
    batches = [latency["batch"] for latency in measurements[0]["latencies"]]
    header = ["", "top-1", "same as eager", *(f"batch {b} p50, speed-up" for b in batches), "size"]
    rows = []
    for m in measurements:
        speeds = [f"{1000 * s['p50']:.2f} ms, {m['speed_up'][str(s['batch'])]:.2f}x" for s in m["latencies"]]
        accuracy = m["accuracy"]
        shares = [f"{100 * share:.2f} %" for share in (accuracy["metrics"][0]["value"], accuracy["agreement"])]
        rows.append([m["name"], *shares, *speeds, f"{m['file_bytes'] / 1e6:.2f} MB"])
    return table(header, rows)


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
    """GFLOP of a forward: transformers', our graph as the model is written, and with Perceiver's algebra."""
    rows = [
        [
            name.removeprefix("Perceiver"),
            f"{figures['huggingface_gflop']:,.1f}",
            f"{figures['plain_gflop']:,.1f}",
            f"{figures['gflop']:,.1f}",
            f"{figures['ratio']:.3f}",
        ]
        for name, figures in document["configurations"].items()
        if "huggingface_gflop" in figures
    ]
    return table(["class", "transformers", "graph, --no-reassociate", "graph", "ratio"], rows)


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


def engines(document: dict[str, Any]) -> str:
    """Of each engine: seconds that the build took, size, and how many matrix products have inputs of which type."""
    precisions = ("fp32", "fp16", "int8")
    rows = []
    names = [*shipped_names(), *document["models"]]  # the shipped ones first
    for model in dict.fromkeys(name for name in names if name in document["models"]):
        found = document["models"][model]
        cells = [engine_cell(found.get(precision)) for precision in precisions]
        attentions = found.get("fp16", {})
        fusible = (
            f"{attentions['fusible_attentions']} of {attentions['attentions']}" if "attentions" in attentions else ""
        )
        memory = found["fp32"].get("activation_bytes")
        rows.append([f"`{model}`", *cells, fusible, f"{memory / 1e6:,.0f} MB" if memory else ""])
    return table(["model", *precisions, "attentions that TensorRT can fuse in fp16", "memory at max, fp32"], rows)


def engine_cell(row: dict[str, Any] | None) -> str:
    """Seconds, megabytes, and the types of matrix products."""
    if row is None:
        return ""
    if "refused" in row:
        return "refused"
    gemms = ", ".join(f"{count} {dtype}" for dtype, count in row["gemm_dtypes"].items())
    return f"{row['build_seconds']:.1f} s, {row['engine_bytes'] / 1e6:.1f} MB, {gemms}"


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


def embed(document: dict[str, Any]) -> str:
    """What embedding costs in C++ and in Python."""
    start, speed, overhead = document["start"], document["two_threads"], document["overhead"]
    wheel = document["wheel"]
    sides = ("cpp", "python")
    rows = [
        [
            "from the start of the process to its end, with one output",
            *(f"{1000 * start[side]['process_s']:.0f} ms" for side in sides),
        ],
        ["of that: until the import is done", "", f"{1000 * wheel['import_s']:.0f} ms"],
        ["peak memory", *(f"{start[side]['peak_mb']:.0f} MB" for side in sides)],
        [
            "two threads share a session",
            *(f"{speed[side]['runs_per_second']:,.0f} runs/s" for side in sides),
        ],
        [
            "added to a call of bare onnxruntime",
            f"{overhead['per_call_us']:.1f} us of {overhead['bare_us']:,.0f} us ({overhead['share']:.1%})",
            "",
        ],
        [
            "size",
            f"library, stripped: {document['stripped_library_bytes'] / 1e6:.2f} MB",
            f"wheel: {wheel['bytes'] / 1e6:.1f} MB; with its extra `cpu`: {wheel['installed_bytes'] / 1e6:,.0f} MB",
        ],
    ]
    return table(["", "C++", "Python"], rows)


ACCURACY_VARIANTS = ("fp32", "fp16", "bf16", "int8-cpu", "int8")


def accuracy(document: dict[str, Any]) -> str:
    """What each precision loses on each shipped task: onnxruntime / OpenVINO; bf16 in OpenVINO alone."""
    header = ["name", "metric", "rows", "eager", *ACCURACY_VARIANTS, "int8: interval, McNemar p", "int8: least SQNR"]
    lines = []
    for name, task in document["tasks"].items():
        found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in ACCURACY_VARIANTS}
        for row in task["candidates"]:
            found[row["variant"]].append(row)
        sqnr = min(figures["sqnr_db"] for row in found["int8"] for figures in row["outputs"].values())
        for index, metric in enumerate(found["fp32"][0]["metrics"]):
            int8 = [row["metrics"][index] for row in found["int8"]]
            lines.append(
                [
                    "" if index else f"`{name}`",
                    metric["metric"],
                    str(metric["examples"]),
                    format_value(metric["eager"], metric["unit"]),
                    *(drops_cell([row["metrics"][index] for row in found[variant]]) for variant in ACCURACY_VARIANTS),
                    " / ".join(map(interval_cell, int8)),
                    "" if index else f"{sqnr:.1f} dB",
                ]
            )
    return table(header, lines)


def drops_cell(metrics: list[dict[str, Any]]) -> str:
    """What is lost in each runtime: points, or the metric's unit."""
    return " / ".join(drop_text(metric["drop"], metric["unit"]) for metric in metrics)


def interval_cell(metric: dict[str, Any]) -> str:
    """The interval, and the p-value where there is one."""
    low, high = (drop_text(value, metric["unit"]) for value in metric["interval"])
    return f"{low} to {high}" + ("" if metric["test"] is None else f", {metric['test']['p_value']:.2f}")


def drop_text(value: float, unit: str) -> str:
    """Two digits of points, three of another unit; no minus before zero."""
    text = f"{100 * value:.2f}" if unit == "%" else f"{value:.3f}"
    return text.removeprefix("-") if float(text) == 0 else text


def trained() -> str:
    """The shipped checkpoints: each metric with its interval, beside a baseline that is no neural network."""
    header = ["name", "task", "metric on the test split (95 % interval)", "baseline", "size", "trained in"]
    rows = []
    for name in shipped_names():
        record = json.loads((SHIPPED / name / "training.json").read_text(encoding="utf-8"))
        task = json.loads((SHIPPED / name / "config.json").read_text(encoding="utf-8"))["task"]
        size = (SHIPPED / name / "model.safetensors").stat().st_size
        for metric, baseline in zip(record["metrics"], record["baseline_metrics"], strict=True):
            value, low, high = (format_value(v, metric["unit"]) for v in (metric["value"], *metric["interval"]))
            first = metric is record["metrics"][0]
            rows.append(
                [
                    f"`{name}`" if first else "",
                    task if first else "",
                    f"{metric['metric']} {value} ({low} to {high})",
                    f"{format_value(baseline['value'], metric['unit'])}, {record['baseline']}",
                    f"{size / 1e6:.2f} MB" if first else "",
                    f"{record['seconds']:.0f} s" if first else "",
                ]
            )
    return table(header, rows)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def from_results(file: str, make: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    """A table made of one file of `results/`."""
    return lambda: make(json.loads((RESULTS / file).read_text(encoding="utf-8")))


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"digits": from_results("digits/benchmark.json", digits)},
    "docs/figures.md": {
        "trained": trained,
        "accuracy": from_results("accuracy.json", accuracy),
        "graph_flops": from_results("graph_flops.json", graph_flops),
        "export_peers": from_results("export_peers.json", export_peers),
        "full_size_parity": from_results("full_size_parity.json", full_size_parity),
    },
    "docs/embedding.md": {"embed": from_results("embed.json", embed)},
    "docs/tensorrt.md": {"engines": from_results("engines.json", engines)},
}


def render(page: str, text: str) -> str:
    """A page with every table made anew."""
    for name, make in PAGES[page].items():
        content = make()
        pattern = rf"(<!-- table:{name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda match, c=content: f"{match[1]}{c}\n{match[2]}", text, flags=re.DOTALL)
        if count != 1:
            sys.exit(f"{page} has {count} places for table {name!r}, expected 1")
    return text


def main() -> None:
    """Write, or check."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        made = render(page, text)
        if "--check" not in sys.argv:
            (ROOT / page).write_text(made, encoding="utf-8")
        elif made != text:
            sys.exit(f"{page} does not agree with benchmarks/results/; run: make tables")


if __name__ == "__main__":
    main()
