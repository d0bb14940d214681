"""The machine and the software a figure was measured with."""

from __future__ import annotations

import os
import platform
from typing import Any

import perceiver_deploy
from perceiver_deploy.machine import has_int8_products, installed_version, processor_kind

_PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "onnx-ir", "onnxscript", "numpy", "transformers")


def describe_environment() -> dict[str, Any]:
    """Processor, cores, operating system, and the versions of what is installed."""
    return {
        "perceiver_deploy": perceiver_deploy.__version__,
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
