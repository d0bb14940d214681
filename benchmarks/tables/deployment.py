"""Tables on deployment: engines and embedding."""

from __future__ import annotations

from typing import Any

from perceiver_deploy.model.checkpoints.load import shipped_names
from tables import table


def engines(document: dict[str, Any]) -> str:
    """For each engine: build seconds, size, and the number of matrix products by type of their inputs."""
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


def embed(document: dict[str, Any]) -> str:
    """Cost of embedding in C++ and in Python."""
    start, speed = document["start"], document["two_threads"]
    wheel = document["wheel"]
    sides = ("cpp", "python")
    rows = [
        [
            "whole process, with one output",
            *(f"{1000 * start[side]['process_s']:.0f} ms" for side in sides),
        ],
        ["of which import", "", f"{1000 * wheel['import_s']:.0f} ms"],
        ["peak memory", *(f"{start[side]['peak_mb']:.0f} MB" for side in sides)],
        [
            "two threads sharing a session",
            *(f"{speed[side]['runs_per_second']:,.0f} runs/s" for side in sides),
        ],
        *(
            [
                f"overhead per call over bare onnxruntime, `{name}`",
                f"{overhead['per_call_us']:.1f} us on {overhead['bare_us']:,.0f} us ({overhead['share']:.1%})",
                "",
            ]
            for name, overhead in document["overhead"].items()
        ),
        [
            "size",
            f"library, stripped: {document['stripped_library_bytes'] / 1e6:.2f} MB",
            f"wheel: {wheel['bytes'] / 1e6:.1f} MB; with its extra `cpu`: {wheel['installed_bytes'] / 1e6:,.0f} MB",
        ],
    ]
    return table(["", "C++", "Python"], rows)
