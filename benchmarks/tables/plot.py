"""The plot of speed against accuracy: full-size models beside peers, and the shipped checkpoints on their tasks."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tables import RESULTS
from tables.full_size import full_size_models, own, peers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS = {  # Okabe and Ito's colours, with a marker each: told apart without seeing colours
    "ours, fp32": ("#0072b2", "o"),
    "ours, bf16": ("#56b4e9", "^"),
    "ours, INT8": ("#d55e00", "s"),
    "onnxruntime dynamic INT8": ("#009e73", "D"),
    "OpenVINO bf16": ("#cc79a7", "v"),
    "NNCF INT8": ("#e69f00", "X"),
}
_PEERS = {
    "onnxruntime dynamic int8": "onnxruntime dynamic INT8",
    "openvino bf16": "OpenVINO bf16",
    "nncf int8": "NNCF INT8",
}
_INCHES = (9.0, 3.8)


@dataclass(frozen=True)
class Point:
    """Speed-up over eager, and what is lost against it."""

    model: str
    way: str
    speed_up: float
    loss: float


def speed_accuracy_digest() -> str:
    """SHA-256 of the plotted points; the plot carries it, so that a check needs no particular matplotlib."""
    points = [[asdict(point) for point in panel] for panel in (full_size_points(), shipped_points())]
    return hashlib.sha256(json.dumps(points).encode()).hexdigest()


def speed_accuracy() -> str:
    """The plot as SVG text, the same bytes for the same figures and the same matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "perceiver-deploy", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=_INCHES, layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw(left, full_size_points())
        left.set_yscale("log")
        left.set_title("Published sizes, random weights")
        left.set_xlabel("speed-up over Hugging Face eager (x)")
        left.set_ylabel("relative L2 error against eager (lower is better)")
        _draw(right, shipped_points())
        right.axhline(0, color="#999999", linewidth=0.8, zorder=1)
        right.set_title("Small shipped checkpoints, real test sets")
        right.set_xlabel("speed-up over our eager model (x)")
        right.set_ylabel("accuracy lost (points, lower is better)")
        handles = {way: handle for axes in (left, right) for handle, way in _legend(axes)}
        ways = [way for way in _LOOKS if way in handles]
        figure.legend([handles[way] for way in ways], ways, loc="outside lower center", ncols=6, frameon=False)
        buffer = io.StringIO()
        description = f"Speed against accuracy; SHA-256 of the plotted points: {speed_accuracy_digest()}"
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Description": description})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def full_size_points() -> list[Point]:
    """Our fastest fp32 and INT8 of each published size, and every peer that gave the right outputs."""
    points = []
    for model, found in full_size_models(_read("cpu_peers.json")).items():
        eager = found["candidates"]["eager"]["median"]
        rows = [(f"ours, {name}", own(found, precision)[1]) for name, precision in (("fp32", "fp32"), ("INT8", "int8"))]
        rows += [(_PEERS[name], row) for name, row in peers(found).items()]
        points += [Point(model, way, eager / row["median"], row["relative_l2"]) for way, row in rows]
    return points


def shipped_points() -> list[Point]:
    """Each accuracy in % of the shipped checkpoints, in the fastest runtime of each precision."""
    ways = {"fp32": "ours, fp32", "bf16": "ours, bf16", "int8": "ours, INT8"}
    return [
        Point(f"{task['name']}, {metric['metric']}", ways[line["variant"]], line["speed_up"], 100 * metric["drop"])
        for task in _read("modalities.json")["tasks"]
        for line in task["variants"]
        for metric in line["metrics"]
        if metric["unit"] == "%" and metric["drop"] is not None
    ]


def _draw(axes: Axes, points: Iterable[Point]) -> None:
    points = list(points)
    for way, (colour, marker) in _LOOKS.items():
        own_points = [point for point in points if point.way == way]
        if own_points:
            x, y = ([getattr(point, name) for point in own_points] for name in ("speed_up", "loss"))
            axes.scatter(x, y, c=colour, marker=marker, s=34, alpha=0.85, linewidths=0, label=way, zorder=2)
    axes.set_xlim(left=0)
    axes.axvline(1, color="#999999", linewidth=0.8, zorder=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", linewidth=0.6, zorder=0)


def _legend(axes: Axes) -> list[tuple[Any, str]]:
    return list(zip(*axes.get_legend_handles_labels(), strict=True))


def _read(file: str) -> dict[str, Any]:
    return json.loads((RESULTS / file).read_text(encoding="utf-8"))
