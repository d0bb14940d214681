"""Compile an ONNX file to an engine of TensorRT or TensorRT-RTX; the latter needs neither a GPU nor a driver.

The precision of the engine is that of the graph: networks are strongly typed, and TF32 is switched off, because it
keeps 10 bits of the mantissa and an `fp32` engine is held to the bounds of float32.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.cache import cache_directory
from perceiver_deploy.errors import ExportError, UsageError, requires
from perceiver_deploy.export.engine.builder_log import BuilderLog, new_builder_log, readable_reason
from perceiver_deploy.runtimes.nvidia.families import FAMILIES, Family
from perceiver_deploy.runtimes.nvidia.gpu import require_gpu
from perceiver_deploy.runtimes.nvidia.profiles import Profile

ComputeCapability = tuple[int, int]

_MOST_NODES_NAMED = 5
_INCONSISTENT_PROFILE = "values are not self-consistent"


@dataclass(frozen=True)
class BuildOptions:
    """What an engine shall be able to do.

    Attributes:
        compute_capabilities: GPUs to build for, of a family that builds ahead of time; otherwise empty.
        refit: weights can be replaced after the build.
        strip_weights: the engine has no weights; they are put in from the ONNX file when it is loaded.
        hardware_compatible: TensorRT only: runs on every GPU from Ampere on.
        version_compatible: TensorRT only: runs with later versions of the same major one.
    """

    compute_capabilities: tuple[ComputeCapability, ...] = ()
    refit: bool = False
    strip_weights: bool = False
    hardware_compatible: bool = False
    version_compatible: bool = False

    def require_buildable(self, family: Family) -> None:
        """Check the options against the family and, where a GPU is needed to build, the machine.

        Raises:
            UsageError: an option that the family does not have, or none of the capabilities that it needs.
            MissingError: no GPU here.
        """
        if family.ahead_of_time:
            if self.hardware_compatible or self.version_compatible:
                raise UsageError(
                    f"Engines of {family.title} are for the compute capabilities that are named and for its version. "
                    "Leave --hardware-compatible and --version-compatible out, or give --engine tensorrt."
                )
            if not self.compute_capabilities:
                raise UsageError("No compute capability is given; expected at least one, for example 8.9.")
            if self.refit or self.strip_weights:
                # 1.7: "kernel_gen: CHECK(sm_vers_.size() == 1)" for several, "graph_jit: CHECK(CUDA_SUCCESS)" without
                # a device.
                if len(self.compute_capabilities) > 1:
                    raise UsageError(
                        f"{family.title} builds engines with --refit or --strip-weights for one compute capability; "
                        f"{len(self.compute_capabilities)} are given. Build one engine for each."
                    )
                require_gpu(f"Building a {family.title} engine with --refit or --strip-weights")
            return
        if self.compute_capabilities:
            raise UsageError(
                f"{family.title} builds for the GPU of this machine, not for a compute capability that is named. Leave "
                "--compute-capability out, or give --engine tensorrt-rtx, or --hardware-compatible."
            )
        require_gpu(f"Building a {family.title} engine")


@dataclass(frozen=True)
class BuiltEngine:
    """An engine, facts about it (versions, what the builder's log tells, seconds), and the whole log."""

    content: bytes
    facts: dict[str, Any]
    log: str


def capability_text(capability: ComputeCapability) -> str:
    """`8.9` for (8, 9)."""
    return ".".join(map(str, capability))


def parse_compute_capability(text: str) -> ComputeCapability:
    """(8, 9) for `8.9`.

    Raises:
        UsageError: not a compute capability that the installed TensorRT-RTX builds for; the message lists those.
        MissingError: the library is not installed.
    """
    rtx, buildable = load_builder(FAMILIES["tensorrt-rtx"]), buildable_capabilities()
    for capability in buildable:
        if capability_text(capability) == text.strip():
            return capability
    raise UsageError(
        f"Compute capability {text!r} cannot be built for. TensorRT-RTX {rtx.__version__} builds for "
        f"{', '.join(map(capability_text, buildable))}. Look up your GPU at https://developer.nvidia.com/cuda-gpus."
    )


def buildable_capabilities() -> list[ComputeCapability]:
    """Compute capabilities that the installed TensorRT-RTX builds for, ascending (`SM120` is 12.0)."""
    members = load_builder(FAMILIES["tensorrt-rtx"]).ComputeCapability.__members__
    matches = [re.fullmatch(r"SM(\d+)(\d)", name) for name in members]
    return sorted((int(match[1]), int(match[2])) for match in matches if match)


def load_builder(family: Family) -> Any:
    """The module of a family, with Polygraphy set to drive it.

    Raises:
        MissingError: it or Polygraphy is not installed.
        ExportError: Polygraphy drives the other family in this process already.
    """
    purpose = f"Building a {family.title} engine"
    with requires(family.extra, purpose):
        import polygraphy.config
    trt, is_rtx = family.load(purpose), family.name == "tensorrt-rtx"
    # The environment variable of this name is read when any part of Polygraphy is first imported, which may have been
    # long ago; this value is read when its TensorRT part is.
    if "polygraphy.backend.trt" not in sys.modules:
        polygraphy.config.USE_TENSORRT_RTX = is_rtx
    if is_rtx != polygraphy.config.USE_TENSORRT_RTX:
        driven = FAMILIES["tensorrt" if is_rtx else "tensorrt-rtx"].title
        raise ExportError(
            f"Polygraphy drives {driven} in this process already, and cannot drive {family.title} as well. Build the "
            f"engine in a new process, or set POLYGRAPHY_USE_TENSORRT_RTX={int(is_rtx)} before the first import."
        )
    return trt


def build_engine_bytes(onnx: Path, family: Family, profiles: Sequence[Profile], options: BuildOptions) -> BuiltEngine:
    """Compile a graph for the shapes of one or several profiles.

    Raises:
        ExportError: TensorRT refuses a node (named, with its operator), cannot build the network, or the model cannot
            run at a profile's sizes.
        MissingError: the family or Polygraphy is not installed, or a GPU is needed to build.
        UsageError: options that the family does not have.
    """
    trt = load_builder(family)
    options.require_buildable(family)
    import polygraphy

    start = time.perf_counter()
    with new_builder_log() as log:
        parsed = _parse(trt, family, onnx)
        content = _compile(trt, family, onnx, parsed, profiles, options, log)
        if inconsistent := [text for text in log.warnings if _INCONSISTENT_PROFILE in text]:
            raise ExportError(
                f"{onnx.name} cannot run at the sizes of the engine's profile: {_first_line(inconsistent[0])} "
                "Give sizes that the model takes, see: perceiver-deploy inspect BUNDLE"
            )
    facts = {
        "tensorrt_version": trt.__version__,
        "polygraphy_version": polygraphy.__version__,
        "tf32": False,
        "refit": options.refit,
        "weights_stripped": options.strip_weights,
        "hardware_compatible": options.hardware_compatible,
        "version_compatible": options.version_compatible,
        **log.facts(),
        "seconds": round(time.perf_counter() - start, 2),
    }
    return BuiltEngine(content, facts, log.text())


def _parse(trt: Any, family: Family, onnx: Path) -> tuple[Any, Any, Any]:
    """Builder, network and parser. The parser holds the weights, so all three stay until the engine is built."""
    from polygraphy.backend.trt import get_trt_logger

    builder = trt.Builder(get_trt_logger())
    network = builder.create_network(family.network_flags(trt))
    # Polygraphy's NetworkFromOnnxPath would drop the names of the refused nodes.
    parser = trt.OnnxParser(network, get_trt_logger())
    if not parser.parse_from_file(os.fspath(onnx)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise ExportError(_refusal(f"{family.title} {trt.__version__}", onnx, errors))
    return builder, network, parser


def _compile(
    trt: Any,
    family: Family,
    onnx: Path,
    parsed: tuple[Any, Any, Any],
    profiles: Sequence[Profile],
    options: BuildOptions,
    log: BuilderLog,
) -> bytes:
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.backend.trt import CreateConfig, EngineBytesFromNetwork
    from polygraphy.backend.trt import Profile as TensorRTProfile
    from polygraphy.exception import PolygraphyException

    shapes = []
    for profile in profiles:
        shapes.append(TensorRTProfile())
        for name, sizes in profile.items():
            shapes[-1].add(name, *sizes)
    common = {"profiles": shapes, "refittable": options.refit, "strip_plan": options.strip_weights}
    timings = None
    if family.ahead_of_time:
        create = CreateConfigRTX(compute_capabilities=list(options.compute_capabilities), **common)
    else:
        timings = timing_cache(trt.__version__)
        level = trt.HardwareCompatibilityLevel.AMPERE_PLUS if options.hardware_compatible else None
        create = CreateConfig(
            hardware_compatibility_level=level,
            version_compatible=options.version_compatible,
            load_timing_cache=os.fspath(timings),
            **common,
        )
    try:
        config = create(*parsed[:2])
        config.clear_flag(trt.BuilderFlag.TF32)
        if options.strip_weights and not options.refit:
            config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
        keep = None if timings is None else os.fspath(timings)
        return bytes(EngineBytesFromNetwork(parsed, config=config, save_timing_cache=keep)())
    except PolygraphyException as error:
        targets = ", ".join(map(capability_text, options.compute_capabilities))
        what = f"{onnx.name} for compute capability {targets}" if targets else onnx.name
        reason = readable_reason((log.errors or [str(error)])[0])
        raise ExportError(
            f"{family.title} {trt.__version__} could not build {what}: {reason}. "
            "Choose other compute capabilities, other shapes or another variant."
        ) from error


def timing_cache(version: str) -> Path:
    """Where a version of TensorRT keeps how long its kernels took on this machine; TensorRT-RTX times none."""
    folder = cache_directory() / "timings"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"tensorrt-{version}.cache"


def _refusal(builder: str, onnx: Path, errors: Sequence[Any]) -> str:
    nodes = []
    for error in errors:
        name, operator, reason = error.node_name(), error.node_operator(), readable_reason(error.desc())
        nodes.append(f"{name} (operator {operator}): {reason.removeprefix(f'{name}: ')}" if operator else reason)
    more = f"; and {len(nodes) - _MOST_NODES_NAMED} more nodes" if len(nodes) > _MOST_NODES_NAMED else ""
    return (
        f"{builder} refuses {onnx.name}: {'; '.join(nodes[:_MOST_NODES_NAMED])}{more}. "
        "Run this variant with onnxruntime or openvino, or export these modules with operators that TensorRT has."
    )


def _first_line(text: str) -> str:
    return text.splitlines()[0].split(" In operator()")[0]
