"""What each runtime that needs a GPU is missing here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from perceiver_deploy.errors import MissingError
from perceiver_deploy.runtimes.catalogue import GpuRuntime
from perceiver_deploy.runtimes.nvidia.families import FAMILIES, FamilyName
from perceiver_deploy.runtimes.nvidia.gpu import find_gpus
from perceiver_deploy.runtimes.nvidia.shared_libraries import missing_dependencies

PLUGIN_MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
_PLUGIN_PACKAGE = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
PROVIDERS: dict[GpuRuntime, str] = {
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
"""What onnxruntime calls them."""


def missing_pieces(runtime: GpuRuntime) -> list[str]:
    """What of a runtime is not here, each piece with what brings it. Nothing of it is run."""
    pieces = _PIECES[runtime]()
    gpus = find_gpus()
    if gpus.problem is not None:
        pieces.append(gpus.problem)
    return pieces


def require_pieces(runtime: GpuRuntime) -> None:
    """Raise a `MissingError` that names all that is missing."""
    if pieces := missing_pieces(runtime):
        raise MissingError(f"Runtime {runtime!r} cannot run here: {'; '.join(pieces)}.")


def _native(name: FamilyName) -> list[str]:
    family = FAMILIES[name]
    pieces = []
    try:
        family.load(f"Running a {family.title} engine")
    except MissingError as error:
        pieces.append(str(error).rstrip("."))
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        pieces.append(f"cuda-bindings is not installed: pip install 'perceiver-deploy[{family.extra}]'")
    return pieces


def _builtin(runtime: GpuRuntime, library: str) -> list[str]:
    """A provider that onnxruntime-gpu has, as a library of its own that links others."""
    provider = PROVIDERS[runtime]
    if importlib.util.find_spec("onnxruntime") is None:
        return ["onnxruntime-gpu is not installed: pip install 'perceiver-deploy[cuda]'"]
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        return [
            f"the installed onnxruntime {onnxruntime.__version__} has no {provider}: pip uninstall onnxruntime, then "
            "pip install 'perceiver-deploy[cuda]'"
        ]
    return missing_dependencies(Path(onnxruntime.__file__).parent / "capi" / library)


def _plugin() -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return ["onnxruntime is not installed: pip install 'perceiver-deploy[cpu]'"]
    import onnxruntime

    pieces = []
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        pieces.append(f"onnxruntime {onnxruntime.__version__} loads no plugins: pip install 'onnxruntime>=1.24'")
    if importlib.util.find_spec(PLUGIN_MODULE) is None:
        pieces.append(f"{_PLUGIN_PACKAGE} is not installed: pip install {_PLUGIN_PACKAGE}")
    return pieces


_PIECES: dict[GpuRuntime, Callable[[], list[str]]] = {
    "onnxruntime-cuda": lambda: _builtin("onnxruntime-cuda", "libonnxruntime_providers_cuda.so"),
    "onnxruntime-tensorrt": lambda: _builtin("onnxruntime-tensorrt", "libonnxruntime_providers_tensorrt.so"),
    "onnxruntime-tensorrt-rtx": _plugin,
    "tensorrt": lambda: _native("tensorrt"),
    "tensorrt-rtx": lambda: _native("tensorrt-rtx"),
}
