"""The machine and the software a figure was measured with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import perceiver_deploy

_PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "onnx-ir", "onnxscript", "numpy", "transformers")


def describe_environment() -> dict[str, Any]:
    """Processor, cores, operating system, and the versions of what is installed."""
    return {
        "perceiver_deploy": perceiver_deploy.__version__,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := installed_version(name)) is not None},
    }


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
