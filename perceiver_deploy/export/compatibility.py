"""Which opset and IR version of ONNX each runtime reads, and whether a choice of opset suits the runtimes named."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from perceiver_deploy.bundle.manifest import Precision, RuntimeName
from perceiver_deploy.errors import UsageError

FIRST_OPSET, LAST_OPSET = 17, 23
"""LayerNormalization came with opset 17; opset 23 is the newest that the exporter's passes were tried with."""
DEFAULT_RUNTIMES: tuple[RuntimeName, ...] = ("onnxruntime", "openvino", "tensorrt-rtx")
ON_CPU: tuple[RuntimeName, ...] = ("onnxruntime", "openvino")


class Reads(NamedTuple):
    """The newest opset and IR version that a release reads."""

    release: tuple[int, int]
    opset: int
    ir_version: int


# From the releases on: the first is the oldest that this package supports. onnxruntime refuses what is newer and names
# its limit, which was read off 1.22.0 and 1.23.0. OpenVINO 2025.2 and TensorRT-RTX 1.7 took each opset to 25 and each
# IR version to 13 (a model of one operator); OpenVINO takes the newest form it knows of an operator. TensorRT: "opset 9
# to opset 24" in docs/operators.md of onnx-tensorrt for 10.15; for older ones ONNX 1.17's is assumed.
_ONNXRUNTIME = (Reads((1, 22), 22, 10), Reads((1, 23), 23, 11))
_PACKAGES: dict[RuntimeName, tuple[str, tuple[Reads, ...]]] = {
    "onnxruntime": ("onnxruntime", _ONNXRUNTIME),
    "onnxruntime-cuda": ("onnxruntime-gpu", _ONNXRUNTIME),
    "onnxruntime-tensorrt": ("onnxruntime-gpu", _ONNXRUNTIME),
    "openvino": ("openvino", (Reads((2025, 2), 25, 13),)),
    "tensorrt": ("tensorrt", (Reads((10, 12), 22, 10), Reads((10, 15), 24, 12))),
    "tensorrt-rtx": ("tensorrt-rtx-cu13", (Reads((1, 7), 25, 13),)),
}


# onnxruntime 1.32's CPU provider has no kernels for bfloat16: it refuses such an Add, Expand or MatMul. Its CUDA and
# TensorRT providers were not tried. OpenVINO 2026.4 ran bf16 graphs, TensorRT-RTX 1.7 built them; TensorRT's parser is
# the same.
_NOT_READ: dict[Precision, tuple[RuntimeName, ...]] = {
    "bf16": ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt"),
}


def readable_by(precision: Precision, runtimes: Sequence[RuntimeName]) -> tuple[RuntimeName, ...]:
    """Those of the runtimes that read a graph of a precision.

    Raises:
        UsageError: none of them does.
    """
    suited = tuple(runtime for runtime in runtimes if runtime not in _NOT_READ.get(precision, ()))
    if not suited:
        others = ", ".join(name for name in _PACKAGES if name not in _NOT_READ[precision])
        raise UsageError(
            f"{', '.join(runtimes)} cannot run a graph in {precision}; {others} can. Export the checkpoint for one of "
            "those, or convert to fp16."
        )
    return suited


def require_readable(opset: int, runtimes: Sequence[RuntimeName]) -> None:
    """Check an opset against what the installed release of each runtime reads, or the oldest supported one.

    Raises:
        UsageError: an opset outside 17 to 23, no runtime, one that reads no ONNX, or one that does not read the opset.
    """
    from onnx.helper import find_min_ir_version_for, make_opsetid

    if not FIRST_OPSET <= opset <= LAST_OPSET:
        raise UsageError(f"opset is {opset}; expected {FIRST_OPSET} to {LAST_OPSET}.")
    if not runtimes:
        raise UsageError(f"No runtime is given; expected at least one of {', '.join(_PACKAGES)}.")
    ir_version = find_min_ir_version_for([make_opsetid("", opset)])
    for runtime in runtimes:
        if runtime not in _PACKAGES:
            raise UsageError(f"A graph cannot be for {runtime!r}; expected one of {', '.join(_PACKAGES)}.")
        release, reads = newest_readable(runtime)
        if opset > reads.opset or ir_version > reads.ir_version:
            raise UsageError(
                f"{runtime} {release} reads opsets up to {reads.opset} and IR versions up to {reads.ir_version}; opset "
                f"{opset} needs IR version {ir_version}. Choose --opset {reads.opset} or less, upgrade {runtime}, or "
                "name only other runtimes with --for."
            )


def newest_readable(runtime: RuntimeName) -> tuple[str, Reads]:
    """The installed release of a runtime (the oldest supported one where none is) and what it reads."""
    package, known = _PACKAGES[runtime]
    try:
        text = version(package)
    except PackageNotFoundError:
        text = ".".join(map(str, known[0].release))
    release = tuple(int(part) for part in text.split(".")[:2])
    return text, [known[0], *(reads for reads in known[1:] if reads.release <= release)][-1]
