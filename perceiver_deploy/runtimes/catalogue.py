"""What each runtime is: the one table that opening, settings, exports, `doctor` and the C++ library are made from.

A new runtime is a record here and the file that it names as `home`; docs/design.md has the recipe.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from perceiver_deploy.bundle.manifest import Precision, RuntimeName
from perceiver_deploy.errors import UsageError
from perceiver_deploy.machine import installed_version

EAGER = "torch"
"""The runtime that runs the source model: the reference that all others are compared with."""
GpuRuntime = Literal["onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-tensorrt-rtx", "tensorrt", "tensorrt-rtx"]
SettingName = Literal["threads", "hint", "static_shapes", "memory_arena", "gpu", "cuda_graph"]


class Reads(NamedTuple):
    """The newest opset and IR version that a release reads."""

    release: tuple[int, int]
    opset: int
    ir_version: int


@dataclass(frozen=True)
class Runtime:
    """A runtime.

    Attributes:
        name: as in `load(runtime=...)`, `--runtime` and `--for`.
        home: the module whose `open_stages(runtime, bundle, variant, settings)` opens the stages of a variant.
        module: what is imported to run; a runtime on the CPU is installed where it can be found.
        packages: distributions that bring the module, the usual one first.
        device: where it runs.
        runs: runtimes whose variants it takes, its own first. Empty for eager, which runs the source model.
        settings: the `RuntimeSettings` that it does not ignore.
        opsets: what its releases read, from the oldest that is supported on. Empty where no variant is made for it.
        refuses: precisions that it has no kernels for.
        tf32: whether it may compute float32 products in TF32, which has the 10 bits of half precision.
        in_cpp: whether the C++ library runs it.
    """

    name: str
    home: str
    module: str
    packages: tuple[str, ...]
    device: Literal["cpu", "gpu"]
    runs: tuple[RuntimeName, ...]
    settings: frozenset[SettingName]
    opsets: tuple[Reads, ...] = ()
    refuses: tuple[Precision, ...] = ()
    tf32: bool = False
    in_cpp: bool = True

    @property
    def package(self) -> str:
        """The usual package."""
        return self.packages[0]

    @property
    def installed(self) -> bool:
        """Whether its module can be found; it is not imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version_text(self) -> str:
        """`onnxruntime 1.32.0`; the name alone where nothing is installed."""
        version = next((found for name in self.packages if (found := installed_version(name)) is not None), "")
        return f"{self.name} {version}".strip()

    def can_run(self, suited: Collection[str]) -> bool:
        """Whether it takes a variant that is for these runtimes."""
        return any(name in suited for name in self.runs)


# onnxruntime refuses what is newer and names its limit, which was read off 1.22.0 and 1.23.0. OpenVINO 2025.2 and
# TensorRT-RTX 1.7 took each opset to 25 and each IR version to 13 (a model of one operator); OpenVINO takes the newest
# form it knows of an operator. TensorRT: "opset 9 to opset 24" in docs/operators.md of onnx-tensorrt for 10.15; for
# older ones ONNX 1.17's is assumed.
_ONNXRUNTIME = (Reads((1, 22), 22, 10), Reads((1, 23), 23, 11))
_ONNXRUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
_CPU, _NVIDIA = "perceiver_deploy.runtimes.cpu", "perceiver_deploy.runtimes.nvidia"

# onnxruntime 1.32's CPU provider has no kernels for bfloat16: it refuses such an Add, Expand or MatMul. Its CUDA and
# TensorRT providers were not tried. OpenVINO 2026.4 ran bf16 graphs, TensorRT-RTX 1.7 built them; TensorRT's parser is
# the same.
_RECORDS = (
    Runtime(
        name=EAGER,
        home="perceiver_deploy.runtimes.eager",
        module="torch",
        packages=("torch",),
        device="cpu",
        runs=(),
        settings=frozenset({"threads"}),
        in_cpp=False,
    ),
    Runtime(
        name="onnxruntime",
        home=f"{_CPU}.onnxruntime",
        module="onnxruntime",
        packages=_ONNXRUNTIME_PACKAGES,
        device="cpu",
        runs=("onnxruntime",),
        settings=frozenset({"threads", "memory_arena"}),
        opsets=_ONNXRUNTIME,
        refuses=("bf16",),
    ),
    Runtime(
        name="openvino",
        home=f"{_CPU}.openvino",
        module="openvino",
        packages=("openvino",),
        device="cpu",
        runs=("openvino",),
        settings=frozenset({"threads", "hint", "static_shapes"}),
        opsets=(Reads((2025, 2), 25, 13),),
        in_cpp=False,
    ),
    Runtime(
        name="onnxruntime-cuda",
        home=f"{_NVIDIA}.onnxruntime",
        module="onnxruntime",
        packages=("onnxruntime-gpu",),
        device="gpu",
        runs=("onnxruntime-cuda", "onnxruntime"),
        settings=frozenset({"threads", "gpu"}),
        opsets=_ONNXRUNTIME,
        refuses=("bf16",),
    ),
    Runtime(
        name="onnxruntime-tensorrt",
        home=f"{_NVIDIA}.onnxruntime",
        module="onnxruntime",
        packages=("onnxruntime-gpu",),
        device="gpu",
        runs=("onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"),
        settings=frozenset({"threads", "gpu"}),
        opsets=_ONNXRUNTIME,
        refuses=("bf16",),
        tf32=True,
    ),
    Runtime(
        name="onnxruntime-tensorrt-rtx",
        home=f"{_NVIDIA}.onnxruntime",
        module="onnxruntime",
        packages=_ONNXRUNTIME_PACKAGES,
        device="gpu",
        runs=("tensorrt-rtx", "tensorrt"),
        settings=frozenset({"gpu"}),
        tf32=True,
    ),
    Runtime(
        name="tensorrt",
        home=f"{_NVIDIA}.tensorrt",
        module="tensorrt",
        packages=("tensorrt",),
        device="gpu",
        runs=("tensorrt", "tensorrt-rtx"),
        settings=frozenset({"gpu", "cuda_graph"}),
        opsets=(Reads((10, 12), 22, 10), Reads((10, 15), 24, 12)),
    ),
    Runtime(
        name="tensorrt-rtx",
        home=f"{_NVIDIA}.tensorrt",
        module="tensorrt_rtx",
        packages=("tensorrt-rtx-cu13",),
        device="gpu",
        runs=("tensorrt-rtx", "tensorrt"),
        settings=frozenset({"gpu", "cuda_graph"}),
        opsets=(Reads((1, 7), 25, 13),),
    ),
)
RUNTIMES: dict[str, Runtime] = {record.name: record for record in _RECORDS}
GPU_RUNTIMES: tuple[GpuRuntime, ...] = get_args(GpuRuntime)
VARIANT_RUNTIMES: tuple[RuntimeName, ...] = tuple(name for name in get_args(RuntimeName) if RUNTIMES[name].opsets)
"""What a variant can be made for."""
CPU_RUNTIMES: tuple[RuntimeName, ...] = tuple(name for name in VARIANT_RUNTIMES if RUNTIMES[name].device == "cpu")


def runtime_named(name: str) -> Runtime:
    """The record of a runtime.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in RUNTIMES:
        raise UsageError(f"There is no runtime {name!r}; expected auto, {', '.join(RUNTIMES)}.")
    return RUNTIMES[name]


def installed_runtimes() -> list[RuntimeName]:
    """Runtimes of the CPU that are installed, eager aside."""
    return [name for name in CPU_RUNTIMES if RUNTIMES[name].installed]


def installed_packages(device: Literal["cpu", "gpu"] | None = None) -> dict[str, str]:
    """Versions of what brings runtimes here (eager aside), of one device or of both."""
    packages = dict.fromkeys(
        package
        for record in RUNTIMES.values()
        if record.runs and device in (None, record.device)
        for package in record.packages
    )
    return {package: found for package in packages if (found := installed_version(package)) is not None}
