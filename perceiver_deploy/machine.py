"""The machine and the installed software, as far as figures and choices depend on them."""

from __future__ import annotations

import importlib
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_deploy._version import __version__

_CPUINFO = Path("/proc/cpuinfo")
_INT8_INSTRUCTIONS = {"avx_vnni", "avx512_vnni", "avx512vnni", "amx_int8", "asimddp", "i8mm"}
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "sse4_2": "SSE4.2", "sse42": "SSE4.2", "sve": "SVE", "asimd": "NEON"}
"""Sets of vector instructions, as /proc/cpuinfo and NumPy call them, the widest first."""
_PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "onnx-ir", "onnxscript", "numpy", "transformers")


def processor_name() -> str:
    """The processor's model."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def processor_kind() -> str:
    """The processor's model and what its numbers in INT8 depend on: "AMD EPYC (AVX2, no INT8 dot products)"."""
    features = processor_features()
    words = [next((text for name, text in _VECTORS.items() if name in features), "")]
    if (products := has_int8_products()) is not None:
        words.append("INT8 dot products" if products else "no INT8 dot products")
    known = ", ".join(word for word in words if word)
    return f"{processor_name()} ({known})" if known else processor_name()


def is_x86() -> bool:
    """Whether the processor is of the x86 family."""
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def has_int8_products() -> bool | None:
    """Whether the processor multiplies INT8 into 32 bits; None where nothing says what it can do."""
    if processor_features() & _INT8_INSTRUCTIONS:
        return True
    return False if _cpuinfo() and processor_features() else None  # NumPy alone does not know AVX-VNNI


@cache
def processor_features() -> frozenset[str]:
    """What the processor can do, in lower case; empty where nothing says it.

    NumPy asks the processor itself, /proc/cpuinfo knows more names. Where the latter has AVX2 or AVX-512 and the former
    does not, the program runs in an emulator or under a mask, and the file is about another processor.
    """
    asked, known = _asked_features(), set[str]()
    for line in _cpuinfo():
        if line.lower().startswith(("flags", "features")):
            known |= set(line.lower().split()[2:])
    told = "NPY_DISABLE_CPU_FEATURES" in os.environ  # then it is NumPy alone that does without
    hidden = [name for name in ("avx2", "avx512f") if asked and not told and name in known and name not in asked]
    return frozenset(asked if hidden else asked | known)


def _asked_features() -> set[str]:
    """What NumPy found when it was imported."""
    core = importlib.import_module("numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core")
    found: dict[str, bool] = core._multiarray_umath.__cpu_features__
    return {name.lower() for name, here in found.items() if here}


def _cpuinfo() -> list[str]:
    return _lines(_CPUINFO)


@cache
def _lines(path: Path) -> list[str]:
    """The lines of a file, read once: a large machine's /proc/cpuinfo takes milliseconds."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def usable_cores() -> int:
    """Cores that this process may run on, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe_environment() -> dict[str, Any]:
    """Processor, cores, operating system, and the versions of what is installed."""
    return {
        "perceiver_deploy": __version__,
        "processor": processor_kind(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := installed_version(name)) is not None},
    }


def int8_problem() -> str | None:
    """What to expect of INT8 where this processor has no instruction for it; None where it has, or where none says."""
    if has_int8_products() is not False:
        return None
    return (
        "This processor has no INT8 dot product (AVX-VNNI, AVX512-VNNI, AMX, or Arm's dot product). INT8 is right "
        "here, but gains less: onnxruntime may still be faster than in fp32, most of all with int8-cpu; OpenVINO "
        "computes it in float32 here, and is not."
    )
