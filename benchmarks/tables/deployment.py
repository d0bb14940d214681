"""What it takes to deploy: engines, and embedding."""

from __future__ import annotations

from typing import Any

from perceiver_deploy.model.checkpoints.load import shipped_names
from tables import table


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


def embed(document: dict[str, Any]) -> str:
    """What embedding costs in C++ and in Python."""
    start, speed = document["start"], document["two_threads"]
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
        *(
            [
                f"added to a call of bare onnxruntime, `{name}`",
                f"{overhead['per_call_us']:.1f} us to {overhead['bare_us']:,.0f} us ({overhead['share']:.1%})",
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
