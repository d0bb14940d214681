"""Which opset and IR version of ONNX each runtime reads, and whether a choice of opset suits the runtimes named."""

from __future__ import annotations

from collections.abc import Sequence

from perceiver_deploy.bundle.manifest import Precision, RuntimeName
from perceiver_deploy.errors import UsageError
from perceiver_deploy.machine import installed_version
from perceiver_deploy.runtimes.catalogue import RUNTIMES, VARIANT_RUNTIMES, Reads

FIRST_OPSET, LAST_OPSET = 17, 23
"""LayerNormalization came with opset 17; opset 23 is the newest that the exporter's passes were tried with."""
DEFAULT_RUNTIMES: tuple[RuntimeName, ...] = ("onnxruntime", "openvino", "tensorrt-rtx")


def readable_by(precision: Precision, runtimes: Sequence[RuntimeName]) -> tuple[RuntimeName, ...]:
    """Those of the runtimes that read a graph of a precision.

    Raises:
        UsageError: none of them does.
    """
    suited = tuple(runtime for runtime in runtimes if precision not in RUNTIMES[runtime].refuses)
    if not suited:
        others = ", ".join(name for name in VARIANT_RUNTIMES if precision not in RUNTIMES[name].refuses)
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
        raise UsageError(f"No runtime is given; expected at least one of {', '.join(VARIANT_RUNTIMES)}.")
    ir_version = find_min_ir_version_for([make_opsetid("", opset)])
    for runtime in runtimes:
        if runtime not in VARIANT_RUNTIMES:
            raise UsageError(f"A graph cannot be for {runtime!r}; expected one of {', '.join(VARIANT_RUNTIMES)}.")
        release, reads = newest_readable(runtime)
        if opset > reads.opset or ir_version > reads.ir_version:
            raise UsageError(
                f"{runtime} {release} reads opsets up to {reads.opset} and IR versions up to {reads.ir_version}; opset "
                f"{opset} needs IR version {ir_version}. Choose --opset {reads.opset} or less, upgrade {runtime}, or "
                "name only other runtimes with --for."
            )


def newest_readable(runtime: RuntimeName) -> tuple[str, Reads]:
    """The installed release of a runtime (the oldest supported one where none is) and what it reads."""
    record = RUNTIMES[runtime]
    known = record.opsets
    text = installed_version(record.package) or ".".join(map(str, known[0].release))
    release = tuple(int(part) for part in text.split(".")[:2])
    return text, [known[0], *(reads for reads in known[1:] if reads.release <= release)][-1]
