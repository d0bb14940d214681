"""What the tests on a GPU share: bundles of every shipped checkpoint with their variants and engines.

Without a GPU every test here is skipped with the reason; a runtime that is not complete skips its tests likewise.
`make test-gpu` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perceiver_deploy import build_engine, convert_bundle, export_model
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.export.engine.build import buildable_capabilities, capability_text
from perceiver_deploy.runtimes.catalogue import GPU_RUNTIMES
from perceiver_deploy.runtimes.nvidia.families import FAMILIES
from perceiver_deploy.runtimes.nvidia.gpu import find_gpus
from perceiver_deploy.runtimes.nvidia.requirements import missing_pieces

PRECISIONS = ("fp32", "fp16", "int8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    problem = find_gpus().problem
    if problem is not None:
        here = Path(__file__).parent
        for item in items:
            if item.path.is_relative_to(here):
                item.add_marker(pytest.mark.skip(reason=f"needs an NVIDIA GPU, and {problem}"))


def why_not(runtime: str) -> str | None:
    """Why a runtime cannot run here, or None."""
    if pieces := missing_pieces(runtime):
        return "; ".join(pieces)
    if runtime == "tensorrt-rtx":
        capability = find_gpus().devices[0].compute_capability
        buildable = [*map(capability_text, buildable_capabilities())]
        if capability not in buildable:
            return f"TensorRT-RTX builds for compute capability {', '.join(buildable)}, and this GPU has {capability}"
    return None


def require(runtime: str) -> None:
    """Skip a test whose runtime is not complete."""
    if (reason := why_not(runtime)) is not None:
        pytest.skip(f"{runtime}: {reason}")


@pytest.fixture(params=GPU_RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime on a GPU that is complete here."""
    require(request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def gpu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`gpu_bundle(name)` is a shipped checkpoint in fp32, fp16 and int8, with an engine of each for each family."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            path = tmp_path_factory.mktemp("gpu") / name
            export_model(name, path)
            for precision in PRECISIONS[1:]:
                convert_bundle(path, precision=precision, calibration=name)
            add_engines(path)
            made[name] = path
        return made[name]

    return get


def add_engines(path: Path) -> None:
    """An engine of every variant for every family that is complete here, with the default profile."""
    for family in FAMILIES:
        if why_not(family) is None:
            capabilities = [find_gpus().devices[0].compute_capability] if family == "tensorrt-rtx" else None
            for variant in Bundle.open(path).manifest.variants:
                build_engine(path, engine=family, variant=variant, compute_capabilities=capabilities)
