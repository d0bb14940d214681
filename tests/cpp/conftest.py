"""What the tests of the C++ library share. `make test-cpp` builds the library; without a build they are skipped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from perceiver_deploy import export_model
from tests.cpp.c_abi import Library

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/cpp"


def built(preset: str, relative: str) -> Path:
    """A file of a build; without it the test is skipped, or fails in CI."""
    path = BUILD / preset / relative
    if not path.exists():
        reason = f"{path} is not built; make test-cpp builds it"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def onnxruntime_library() -> Path:
    """The library that Python's onnxruntime runs, too."""
    (found,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    return found


@pytest.fixture(scope="session")
def library(onnxruntime_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    os.environ["PERCEIVER_DEPLOY_ONNXRUNTIME"] = str(onnxruntime_library)
    return Library(built("release", "libperceiver_deploy.so"), tmp_path_factory.mktemp("verdicts"))


@pytest.fixture(scope="session")
def raw_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The bundle of a shipped checkpoint that takes raw data, made when first asked for."""
    root = tmp_path_factory.mktemp("raw")

    def get(name: str) -> Path:
        if not (root / name).exists():
            export_model(name, root / name, raw_inputs=True, validate=False)
        return root / name

    return get


@pytest.fixture
def run(
    onnxruntime_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program with the environment that finds onnxruntime; `variables` are added to it."""
    folders = {
        "PERCEIVER_DEPLOY_ONNXRUNTIME": str(onnxruntime_library),
        "PERCEIVER_DEPLOY_CACHE": str(tmp_path_factory.mktemp("verdicts")),
    }

    def call(*command: str | Path, standard_input: bytes = b"", **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **folders, **variables}
        result = subprocess.run([*map(str, command)], env=environment, input=standard_input, capture_output=True)
        return subprocess.CompletedProcess(
            command, result.returncode, result.stdout.decode(errors="replace"), result.stderr.decode(errors="replace")
        )

    return call
