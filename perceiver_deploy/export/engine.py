"""Build a TensorRT-RTX engine from an ONNX file ahead of time: neither a GPU nor a driver is needed.

The precision of the engine is that of the graph: networks are strongly typed, and TF32 is switched off, because it
keeps 10 bits of the mantissa and an `fp32` engine is held to the bounds of float32.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perceiver_deploy.errors import ExportError, UsageError, requires
from perceiver_deploy.export.builder_log import BuilderLog, builder_log, readable_reason
from perceiver_deploy.export.profiles import Profile

ComputeCapability = tuple[int, int]

_MOST_NODES_NAMED = 5
_INCONSISTENT_PROFILE = "values are not self-consistent"


def capability_text(capability: ComputeCapability) -> str:
    """`8.9` for (8, 9)."""
    return ".".join(map(str, capability))


def parse_compute_capability(text: str) -> ComputeCapability:
    """(8, 9) for `8.9`.

    Raises:
        UsageError: not a compute capability that the installed library builds for; the message lists those.
        MissingError: the library is not installed.
    """
    buildable = buildable_capabilities()
    for capability in buildable:
        if capability_text(capability) == text.strip():
            return capability
    raise UsageError(
        f"Compute capability {text!r} cannot be built for. TensorRT-RTX {_tensorrt().__version__} builds for "
        f"{', '.join(map(capability_text, buildable))}. Look up your GPU at https://developer.nvidia.com/cuda-gpus."
    )


def buildable_capabilities() -> list[ComputeCapability]:
    """Compute capabilities that the installed library builds for, ascending (`SM120` is 12.0)."""
    matches = [re.fullmatch(r"SM(\d+)(\d)", name) for name in _tensorrt().ComputeCapability.__members__]
    return sorted((int(match[1]), int(match[2])) for match in matches if match)


def build_engine_bytes(
    onnx: Path, profile: Profile, compute_capabilities: Sequence[ComputeCapability]
) -> tuple[bytes, dict[str, Any]]:
    """The engine and facts about it: versions, what the builder's log tells (`BuilderLog.facts`), seconds.

    Raises:
        ExportError: TensorRT refuses a node (named, with its operator), cannot build the network for a compute
            capability, or the model cannot run at the profile's sizes.
        MissingError: TensorRT-RTX or Polygraphy is not installed.
    """
    trt = _tensorrt()
    import polygraphy

    start = time.perf_counter()
    with builder_log() as log:
        parsed = _parse(trt, onnx)
        engine = _compile(trt, onnx, parsed, profile, compute_capabilities, log)
        if inconsistent := [text for text in log.warnings if _INCONSISTENT_PROFILE in text]:
            raise ExportError(
                f"{onnx.name} cannot run at the sizes of the engine's profile: {_first_line(inconsistent[0])} "
                "Give sizes that the model takes, see: perceiver-deploy inspect BUNDLE"
            )
    return engine, {
        "tensorrt_version": trt.__version__,
        "polygraphy_version": polygraphy.__version__,
        "tf32": False,
        **log.facts(),
        "seconds": round(time.perf_counter() - start, 2),
    }


def _parse(trt: Any, onnx: Path) -> tuple[Any, Any, Any]:
    """Builder, network and parser. The parser holds the weights, so all three stay until the engine is built."""
    from polygraphy.backend.trt import CreateNetwork, get_trt_logger

    builder, network = CreateNetwork()()
    # Polygraphy's NetworkFromOnnxPath would drop the names of the refused nodes.
    parser = trt.OnnxParser(network, get_trt_logger())
    if not parser.parse_from_file(os.fspath(onnx)):
        raise ExportError(_refusal(onnx, [parser.get_error(index) for index in range(parser.num_errors)]))
    return builder, network, parser


def _compile(
    trt: Any,
    onnx: Path,
    parsed: tuple[Any, Any, Any],
    profile: Profile,
    compute_capabilities: Sequence[ComputeCapability],
    log: BuilderLog,
) -> bytes:
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.backend.trt import EngineBytesFromNetwork
    from polygraphy.backend.trt import Profile as TensorRTProfile
    from polygraphy.exception import PolygraphyException

    shapes = TensorRTProfile()
    for name, sizes in profile.items():
        shapes.add(name, *sizes)
    builder, network, _ = parsed
    try:
        config = CreateConfigRTX(profiles=[shapes], compute_capabilities=list(compute_capabilities))(builder, network)
        config.clear_flag(trt.BuilderFlag.TF32)
        return bytes(EngineBytesFromNetwork(parsed, config=config)())
    except PolygraphyException as error:
        raise ExportError(_failure(onnx, compute_capabilities, log.errors or [str(error)])) from error


def _tensorrt() -> Any:
    """The module `tensorrt_rtx`, with Polygraphy set to drive it."""
    with requires("rtx", "Building a TensorRT-RTX engine"):
        import polygraphy.config
        import tensorrt_rtx
    # The environment variable of this name is read when any part of Polygraphy is first imported, which may have been
    # long ago; this value is read when its TensorRT part is.
    if "polygraphy.backend.trt" not in sys.modules:
        polygraphy.config.USE_TENSORRT_RTX = True
    if not polygraphy.config.USE_TENSORRT_RTX:
        raise ExportError(
            "Polygraphy drives TensorRT in this process already, and cannot drive TensorRT-RTX as well. "
            "Build the engine in a new process, or set POLYGRAPHY_USE_TENSORRT_RTX=1 before the first import."
        )
    return tensorrt_rtx


def _refusal(onnx: Path, errors: Sequence[Any]) -> str:
    nodes = []
    for error in errors:
        name, operator, reason = error.node_name(), error.node_operator(), readable_reason(error.desc())
        nodes.append(f"{name} (operator {operator}): {reason.removeprefix(f'{name}: ')}" if operator else reason)
    more = f"; and {len(nodes) - _MOST_NODES_NAMED} more nodes" if len(nodes) > _MOST_NODES_NAMED else ""
    return (
        f"TensorRT-RTX {_tensorrt().__version__} refuses {onnx.name}: {'; '.join(nodes[:_MOST_NODES_NAMED])}{more}. "
        "Run this variant with onnxruntime or openvino, or export these modules with operators that TensorRT has."
    )


def _failure(onnx: Path, compute_capabilities: Sequence[ComputeCapability], errors: Sequence[str]) -> str:
    return (
        f"TensorRT-RTX {_tensorrt().__version__} could not build {onnx.name} for compute capability "
        f"{', '.join(map(capability_text, compute_capabilities))}: {readable_reason(errors[0])}. "
        "Choose other compute capabilities, other shapes or another variant."
    )


def _first_line(text: str) -> str:
    return text.splitlines()[0].split(" In operator()")[0]
