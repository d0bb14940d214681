"""The shipped checkpoints: what they were trained to, and what precision and runtimes make of them."""

from __future__ import annotations

import json
from typing import Any

from perceiver_deploy.data.metrics import format_value
from perceiver_deploy.model.checkpoints.load import SHIPPED, shipped_names
from tables import table

ACCURACY_VARIANTS = ("fp32", "fp16", "bf16", "int8-cpu", "int8")


def digits(document: dict[str, Any]) -> str:
    """What `demo` shows of the shipped digits model: accuracy and speed."""
    measurements = document["measurements"]
    batches = [latency["batch"] for latency in measurements[0]["latencies"]]
    speeds = [f"batch {batch}: p50, ms (speed-up)" for batch in batches]
    header = ["runtime and variant", "top-1 accuracy, %", "same top-1 as eager, %", *speeds, "size, MB"]
    rows = []
    for m in measurements:
        cells = [f"{1000 * s['p50']:.2f} ({s['speed_up']:.2f}x)" for s in m["latencies"]]
        accuracy = m["accuracy"]
        shares = [f"{100 * share:.2f}" for share in (accuracy["metrics"][0]["value"], accuracy["agreement"])]
        rows.append([m["name"], *shares, *cells, f"{m['file_bytes'] / 1e6:.2f}"])
    return table(header, rows)


def modalities_in_short(document: dict[str, Any]) -> str:
    """`modalities` with the first metric of each task only."""
    return modalities(document, metrics=1)


def modalities(document: dict[str, Any], metrics: int | None = None) -> str:
    """Each shipped task: its metrics for baseline and eager, the loss and speed-up of each variant, sizes."""
    header = [
        "checkpoint",
        "metric (test rows)",
        "baseline",
        "eager",
        "fp32: speed-up",
        "bf16: lost, speed-up",
        "INT8: lost, speed-up",
        "size, eager / INT8, MB",
    ]
    rows = []
    for task in document["tasks"]:
        found = {line["variant"]: line for line in task["variants"]}
        baselines = {metric["metric"]: metric for metric in training(task["name"])["baseline_metrics"]}
        for index, metric in enumerate(task["eager"]["metrics"][:metrics]):
            first = index == 0
            cells = [speed_cell(found["fp32"])] if first else [""]
            for variant in ("bf16", "int8"):
                own = found[variant]["metrics"][index]
                lost = f"{drop_text(own['drop'], own['unit'])} {'points' if own['unit'] == '%' else own['unit']}"
                cells.append(lost + (f", {speed_cell(found[variant])}" if first else ""))
            sizes = " / ".join(f"{line['file_bytes'] / 1e6:.2f}" for line in (task["eager"], found["int8"]))
            rows.append(
                [
                    f"`{task['name']}`" if first else "",
                    f"{metric['metric']} ({metric['examples']:,})",
                    format_value(baselines[metric["metric"]]["value"], metric["unit"]),
                    format_value(metric["value"], metric["unit"]),
                    *cells,
                    sizes if first else "",
                ]
            )
    return table(header, rows)


def speed_cell(line: dict[str, Any]) -> str:
    """Speed-up, and the runtime that was fastest."""
    return f"{line['speed_up']:.2f}x {line['runtime']}"


def accuracy(document: dict[str, Any]) -> str:
    """What each precision loses on each shipped task: all at a glance, then each with its intervals and tests."""
    parts = [accuracy_overview(document)]
    for variant in ACCURACY_VARIANTS:
        parts += [f"### {variant}", accuracy_in_full(document, variant)]
    return "\n\n".join(parts)


def accuracy_overview(document: dict[str, Any]) -> str:
    """Losses alone: onnxruntime / OpenVINO; bf16 in OpenVINO alone."""
    header = ["name", "metric", "rows", "eager", *ACCURACY_VARIANTS]
    lines = []
    for name, task in document["tasks"].items():
        found = {variant: candidates(task, variant) for variant in ACCURACY_VARIANTS}
        for index, metric in enumerate(found["fp32"][0]["metrics"]):
            lines.append(
                [
                    "" if index else f"`{name}`",
                    metric["metric"],
                    str(metric["examples"]),
                    format_value(metric["eager"], metric["unit"]),
                    *(drops_cell([row["metrics"][index] for row in found[variant]]) for variant in ACCURACY_VARIANTS),
                ]
            )
    return table(header, lines)


def accuracy_in_full(document: dict[str, Any], variant: str) -> str:
    """One precision: the loss with its interval and McNemar's p in each runtime, and the least SQNR of an output."""
    runtimes = [row["runtime"] for row in candidates(next(iter(document["tasks"].values())), variant)]
    lines = []
    for name, task in document["tasks"].items():
        found = candidates(task, variant)
        sqnr = [figures["sqnr_db"] for row in found for figures in row["outputs"].values()]
        least = min(value for value in sqnr if value is not None)  # equal bits have none
        for index, metric in enumerate(found[0]["metrics"]):
            lines.append(
                [
                    "" if index else f"`{name}`",
                    metric["metric"],
                    *(interval_cell(row["metrics"][index]) for row in found),
                    "" if index else f"{least:.1f} dB",
                ]
            )
    return table(["name", "metric", *runtimes, "least SQNR"], lines)


def candidates(task: dict[str, Any], variant: str) -> list[dict[str, Any]]:
    """What was measured of a variant, by runtime."""
    return [row for row in task["candidates"] if row["variant"] == variant]


def drops_cell(metrics: list[dict[str, Any]]) -> str:
    """The loss in each runtime: points, or the metric's unit."""
    return " / ".join(drop_text(metric["drop"], metric["unit"]) for metric in metrics)


def interval_cell(metric: dict[str, Any]) -> str:
    """What is lost, its interval, and the p-value where there is one."""
    drop, low, high = (drop_text(value, metric["unit"]) for value in (metric["drop"], *metric["interval"]))
    test = "" if metric["test"] is None else f", p {metric['test']['p_value']:.2f}"
    return f"{drop} ({low} to {high}){test}"


def drop_text(value: float | None, unit: str) -> str:
    """Two digits of points, three of another unit; no minus before zero. Outputs that are not finite have no number."""
    if value is None:
        return "everything"
    text = f"{100 * value:.2f}" if unit == "%" else f"{value:.3f}"
    return text.removeprefix("-") if float(text) == 0 else text


def training(name: str) -> dict[str, Any]:
    """The record beside a shipped checkpoint."""
    return json.loads((SHIPPED / name / "training.json").read_text(encoding="utf-8"))


def trained() -> str:
    """The shipped checkpoints: each metric with its interval, beside a baseline that is no neural network."""
    header = ["name", "task", "metric on the test split (95 % interval)", "baseline", "size", "trained in"]
    rows = []
    for name in shipped_names():
        record = training(name)
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
