"""perceiver-deploy: from a trained Perceiver to a verified, small, fast deployment.

The public functions are imported when first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perceiver_deploy.data.flow import estimate_flow
    from perceiver_deploy.pipeline.benchmark import benchmark_bundles
    from perceiver_deploy.pipeline.build import build_engine
    from perceiver_deploy.pipeline.convert import convert_bundle
    from perceiver_deploy.pipeline.export import export_model
    from perceiver_deploy.pipeline.tuning import tune_bundle
    from perceiver_deploy.pipeline.validate import validate_bundle
    from perceiver_deploy.runtimes.loading import load
    from perceiver_deploy.runtimes.queries import run_in_chunks
    from perceiver_deploy.runtimes.reconstruction import reconstruct_clip
    from perceiver_deploy.runtimes.settings import RuntimeSettings

__version__ = "0.1.0"
__all__ = [
    "RuntimeSettings",
    "benchmark_bundles",
    "build_engine",
    "convert_bundle",
    "estimate_flow",
    "export_model",
    "load",
    "reconstruct_clip",
    "run_in_chunks",
    "tune_bundle",
    "validate_bundle",
]

# onnxruntime reports to its makers unless told not to before it is first imported; the user's own setting wins.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "RuntimeSettings": "perceiver_deploy.runtimes.settings",
    "benchmark_bundles": "perceiver_deploy.pipeline.benchmark",
    "build_engine": "perceiver_deploy.pipeline.build",
    "convert_bundle": "perceiver_deploy.pipeline.convert",
    "estimate_flow": "perceiver_deploy.data.flow",
    "export_model": "perceiver_deploy.pipeline.export",
    "load": "perceiver_deploy.runtimes.loading",
    "reconstruct_clip": "perceiver_deploy.runtimes.reconstruction",
    "run_in_chunks": "perceiver_deploy.runtimes.queries",
    "tune_bundle": "perceiver_deploy.pipeline.tuning",
    "validate_bundle": "perceiver_deploy.pipeline.validate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
