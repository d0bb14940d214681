"""Doctor: what is installed, what can run here, and what to install for the rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from perceiver_deploy.machine import describe_environment, installed_version, int8_problem
from perceiver_deploy.runtimes.catalogue import GPU_RUNTIMES, installed_runtimes
from perceiver_deploy.runtimes.nvidia.gpu import Gpus, driver_version, find_gpus
from perceiver_deploy.runtimes.nvidia.requirements import missing_pieces

_EXTRAS = {
    "export": ("torch", "onnx", "onnx-ir", "onnxscript", "safetensors"),
    "train": ("accelerate", "scikit-learn"),
    "cpu": ("onnxruntime", "openvino"),
    "cuda": ("onnxruntime-gpu",),
    "trt": ("tensorrt", "polygraphy", "cuda-bindings"),
    "rtx": ("tensorrt-rtx-cu13", "polygraphy", "cuda-bindings"),
    "hf": ("transformers",),
    "media": ("pillow",),
    "report": ("jinja2",),
    "loadgen": ("mlcommons_loadgen",),
}


@dataclass(frozen=True)
class ExtraStatus:
    """One extra: the versions of its packages (None: not installed) and how to complete it."""

    name: str
    packages: dict[str, str | None]
    install: str | None


@dataclass(frozen=True)
class Diagnosis:
    """Runtimes that can run bundles here, state of every extra, problems that will bite, and the machine.

    `gpu_runtimes` has what each runtime that needs a GPU lacks here; nothing where it can run.
    """

    runtimes: tuple[str, ...]
    extras: tuple[ExtraStatus, ...]
    problems: tuple[str, ...]
    gpu_driver: str | None
    gpus: tuple[dict[str, Any], ...]
    gpu_runtimes: dict[str, list[str]]
    environment: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def diagnose() -> Diagnosis:
    """Look at this installation and machine."""
    gpus = find_gpus()
    lacking: dict[str, list[str]] = {name: missing_pieces(name) for name in GPU_RUNTIMES}
    extras = []
    for name, packages in _EXTRAS.items():
        versions = {package: installed_version(package) for package in packages}
        complete = None not in versions.values()
        install = None if complete else f"pip install 'perceiver-deploy[{name}]'"
        if install is not None and name == "cuda" and installed_version("onnxruntime"):
            install = f"pip uninstall onnxruntime, then {install}: they share one import folder"
        extras.append(ExtraStatus(name, versions, install))
    runtimes: list[str] = [*installed_runtimes(), *(["torch"] if installed_version("torch") else [])]
    runtimes += [name for name, pieces in lacking.items() if not pieces]
    return Diagnosis(
        tuple(runtimes),
        tuple(extras),
        tuple(_problems(gpus)),
        driver_version(),
        tuple(asdict(gpu) for gpu in gpus.devices),
        lacking,
        describe_environment(),
    )


def _problems(gpus: Gpus) -> list[str]:
    problems = []
    if installed_version("onnxruntime") and installed_version("onnxruntime-gpu"):
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files. Uninstall both, then "
            "install one of them."
        )
    if not any(installed_version(package) for package in ("onnxruntime", "onnxruntime-gpu", "openvino")):
        problems.append("No runtime is installed, so no bundle can be run: pip install 'perceiver-deploy[cpu]'")
    if (problem := int8_problem()) is not None:
        problems.append(problem)
    if gpus.problem is not None:
        problems.append(
            f"No GPU, because {gpus.problem}. TensorRT-RTX engines can be built ahead of time here, but not run."
        )
    return problems
