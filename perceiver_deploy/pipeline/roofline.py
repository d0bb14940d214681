"""The least time that a GPU needs for a stage, by its published peak rates: what a measured latency is to be judged by.

A stage takes at least as long as its operations at the peak rate of the matrix units, and at least as long as reading
its weights and inputs and writing its outputs once at the peak bandwidth. Kernel launches, intermediate results and
clocks below the peak come on top. A model whose weights stay in the GPU's cache between runs can undercut the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import (
    Manifest,
    Precision,
    StageName,
    TensorSpec,
    axes_of,
    evaluate_size,
    opt_sizes,
)
from perceiver_deploy.bundle.recipe import ModuleRecord
from perceiver_deploy.errors import BundleError, UsageError

_H100 = "https://www.nvidia.com/en-us/data-center/h100/"
_H200 = "https://www.nvidia.com/en-us/data-center/h200/"
_A100 = "https://www.nvidia.com/en-us/data-center/a100/"
_L4 = "https://www.nvidia.com/en-us/data-center/l4/"
_L40S = "https://www.nvidia.com/en-us/data-center/l40s/"
_GA102 = "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.1.pdf"
_ADA = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
_BLACKWELL = "https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf"

_WEIGHT_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Device:
    """A GPU by its data sheet: dense rates in TFLOP/s (TOP/s), memory bandwidth in GB/s.

    `fp32` is without TF32, as our engines are built; `fp16` is with the faster accumulation where there are two.
    """

    title: str
    compute_capability: str
    fp32: float
    fp16: float
    int8: float
    bandwidth: float
    source: str

    def rate(self, precision: Precision) -> float:
        """Operations a second."""
        return {"fp32": self.fp32, "fp16": self.fp16, "int8": self.int8}[precision] * 1e12


DEVICES = {
    "h100": Device("H100 SXM", "9.0", 67, 989.5, 1979, 3350, _H100),
    "h200": Device("H200 SXM", "9.0", 67, 989.5, 1979, 4800, _H200),
    "a100": Device("A100 80GB SXM", "8.0", 19.5, 312, 624, 2039, _A100),
    "l4": Device("L4", "8.9", 30.3, 121, 242.5, 300, _L4),
    "l40s": Device("L40S", "8.9", 91.6, 362, 733, 864, _L40S),
    "rtx3090": Device("GeForce RTX 3090", "8.6", 35.6, 142, 284, 936, _GA102),
    "rtx4090": Device("GeForce RTX 4090", "8.9", 82.6, 330.3, 660.6, 1008, _ADA),
    "rtx5090": Device("GeForce RTX 5090", "12.0", 104.8, 419, 838, 1792, _BLACKWELL),
}


@dataclass(frozen=True)
class Bound:
    """The least seconds of one stage in one precision with every axis at its `opt` size, and what sets them."""

    stage: StageName
    precision: Precision
    flops: int
    bytes: int
    compute_seconds: float
    memory_seconds: float

    @property
    def seconds(self) -> float:
        """The larger of both."""
        return max(self.compute_seconds, self.memory_seconds)

    @property
    def limit(self) -> str:
        """What the larger one is of: `compute` or `memory`."""
        return "compute" if self.compute_seconds >= self.memory_seconds else "memory"

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {**asdict(self), "seconds": self.seconds, "limit": self.limit}


def device_named(name: str) -> Device:
    """The device of that name, in any case and with or without spaces and hyphens.

    Raises:
        UsageError: there are no figures for it.
    """
    try:
        return DEVICES[name.lower().replace(" ", "").replace("-", "")]
    except KeyError:
        raise UsageError(f"There are no peak rates of the device {name!r}; expected {', '.join(DEVICES)}.") from None


def latency_bounds(bundle: Bundle, device: Device) -> list[Bound]:
    """Bounds of each stage in fp32, fp16 and int8, from the operations and weights of the variant in fp32.

    Raises:
        BundleError: the bundle has no variant in fp32 whose operations were counted.
    """
    manifest = bundle.manifest
    for variant in manifest.variants.values():
        recipe = variant.recipe
        if variant.precision == "fp32" and all(recipe.graph(stage).modules for stage in variant.files):
            return [
                _bound(stage, precision, recipe.graph(stage).modules, manifest, device)
                for stage in variant.files
                for precision in _WEIGHT_BYTES
            ]
    raise BundleError(
        f"{bundle.path} has no variant in fp32 with counted operations. Export the checkpoint again with this version."
    )


def _bound(
    stage: StageName, precision: Precision, modules: Sequence[ModuleRecord], manifest: Manifest, device: Device
) -> Bound:
    sizes = opt_sizes(manifest.axes)
    flops = sum(module.flops for module in modules)
    weights = sum(module.weight_bytes for module in modules) * _WEIGHT_BYTES[precision] // _WEIGHT_BYTES["fp32"]
    tensors = [*manifest.stages[stage].inputs, *manifest.stages[stage].outputs]
    moved = weights + sum(_tensor_bytes(spec, sizes) for spec in tensors)
    return Bound(stage, precision, flops, moved, flops / device.rate(precision), moved / (device.bandwidth * 1e9))


def _tensor_bytes(spec: TensorSpec, sizes: dict[str, int]) -> int:
    """0 where the shape depends on values, as with sizes that are an input."""
    if any(name not in sizes for size in spec.shape for name in axes_of(size)):
        return 0
    return math.prod(evaluate_size(size, sizes) for size in spec.shape) * np.dtype(spec.dtype).itemsize
