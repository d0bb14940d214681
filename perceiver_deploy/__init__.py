"""perceiver-deploy: from a trained Perceiver to a verified, small, fast deployment.

The public functions are imported when first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from perceiver_deploy._version import __version__

if TYPE_CHECKING:
    from perceiver_deploy.data.media.flow import estimate_flow
    from perceiver_deploy.pipeline.benchmark.benchmark import benchmark_bundles
    from perceiver_deploy.pipeline.build import build_engine
    from perceiver_deploy.pipeline.convert.convert import convert_bundle
    from perceiver_deploy.pipeline.export.export import export_model
    from perceiver_deploy.pipeline.tune.tune import tune_bundle
    from perceiver_deploy.pipeline.validate.validate import validate_bundle
    from perceiver_deploy.runtimes.opening import load
    from perceiver_deploy.runtimes.settings import RuntimeSettings
    from perceiver_deploy.runtimes.stages.queries import run_in_chunks
    from perceiver_deploy.runtimes.stages.reconstruction import reconstruct_clip

__all__ = [
    "RuntimeSettings",
    "__version__",
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
    "benchmark_bundles": "perceiver_deploy.pipeline.benchmark.benchmark",
    "build_engine": "perceiver_deploy.pipeline.build",
    "convert_bundle": "perceiver_deploy.pipeline.convert.convert",
    "estimate_flow": "perceiver_deploy.data.media.flow",
    "export_model": "perceiver_deploy.pipeline.export.export",
    "load": "perceiver_deploy.runtimes.opening",
    "reconstruct_clip": "perceiver_deploy.runtimes.stages.reconstruction",
    "run_in_chunks": "perceiver_deploy.runtimes.stages.queries",
    "tune_bundle": "perceiver_deploy.pipeline.tune.tune",
    "validate_bundle": "perceiver_deploy.pipeline.validate.validate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
