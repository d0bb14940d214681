"""Doctor: what is installed, what can run here, and what to install for the rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.evaluate.environment import describe_environment, int8_problem
from perceiver_deploy.machine import installed_version
from perceiver_deploy.runtimes.loading import installed_runtimes

_EXTRAS = {
    "export": ("torch", "onnx", "onnx-ir", "onnxscript", "safetensors"),
    "train": ("accelerate", "scikit-learn"),
    "cpu": ("onnxruntime", "openvino"),
    "cuda": ("onnxruntime-gpu",),
    "trt": ("tensorrt", "polygraphy"),
    "rtx": ("tensorrt-rtx-cu13", "polygraphy"),
    "hf": ("transformers",),
    "media": ("pillow",),
    "report": ("jinja2",),
}
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class ExtraStatus:
    """One extra: the versions of its packages (None: not installed) and how to complete it."""

    name: str
    packages: dict[str, str | None]
    install: str | None


@dataclass(frozen=True)
class Diagnosis:
    """Runtimes that can run bundles here, state of every extra, problems that will bite, and the machine."""

    runtimes: tuple[str, ...]
    extras: tuple[ExtraStatus, ...]
    problems: tuple[str, ...]
    gpu_driver: str | None
    environment: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def diagnose() -> Diagnosis:
    """Look at this installation and machine."""
    driver = _DRIVER.read_text(encoding="utf-8").splitlines()[0] if _DRIVER.exists() else None
    extras = []
    for name, packages in _EXTRAS.items():
        versions = {package: installed_version(package) for package in packages}
        complete = None not in versions.values()
        install = None if complete else f"pip install 'perceiver-deploy[{name}]'"
        if install is not None and name == "cuda" and installed_version("onnxruntime"):
            install = f"pip uninstall onnxruntime, then {install}: they share one import folder"
        extras.append(ExtraStatus(name, versions, install))
    runtimes = [*installed_runtimes(), *(["torch"] if installed_version("torch") else [])]
    return Diagnosis(tuple(runtimes), tuple(extras), tuple(_problems(driver)), driver, describe_environment())


def _problems(driver: str | None) -> list[str]:
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
    if driver is None:
        problems.append("No NVIDIA driver: TensorRT-RTX engines can be built ahead of time here, but not run.")
    return problems
