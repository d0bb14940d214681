"""The machine and the software a figure was measured with."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import perceiver_deploy
from perceiver_deploy.machine import installed_version, processor_name

_PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "onnx-ir", "onnxscript", "numpy", "transformers")

_CPUINFO = Path("/proc/cpuinfo")
_INT8_INSTRUCTIONS = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}


def describe_environment() -> dict[str, Any]:
    """Processor, cores, operating system, and the versions of what is installed."""
    return {
        "perceiver_deploy": perceiver_deploy.__version__,
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := installed_version(name)) is not None},
    }


def int8_problem() -> str | None:
    """What to expect of INT8 where this processor has no instruction for it; None where it has, or where none says."""
    flags = _flags()
    if not flags or flags & _INT8_INSTRUCTIONS:
        return None
    return (
        "This processor has no INT8 dot product (AVX-VNNI, AVX512-VNNI, AMX, or Arm's dot product). Expect INT8 about "
        "as fast as fp32 in a quarter of the memory and, on x86, sums that saturate at 16 bits: validate and benchmark "
        "the variant here."
    )


def _flags() -> set[str]:
    """What /proc/cpuinfo says that the processor can do; empty where there is no such file."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()[2:]}
