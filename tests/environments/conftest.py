"""What the environments are given: the wheel, and bundles that were exported here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiver_deploy import convert_bundle

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, shared_bundle: Callable[[str], Path]) -> Path:
    """A folder with `digits.bundle` in fp32 and INT8 and `sentiment.bundle`."""
    folder = tmp_path_factory.mktemp("exported")
    for name in ("digits", "sentiment"):
        shutil.copytree(shared_bundle(name), folder / f"{name}.bundle")
    convert_bundle(folder / "digits.bundle", precision="int8", calibration="digits")
    return folder


@pytest.fixture(scope="session")
def no_registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Why pip reaches no package registry; empty where it does."""
    probe = ["download", "--quiet", "--no-deps", "--no-cache-dir", "--dest", tmp_path_factory.mktemp("probe"), "click"]
    result = subprocess.run([sys.executable, "-m", "pip", *probe], capture_output=True, text=True)
    return f"the network: pip reaches no registry. {result.stderr.strip()}" if result.returncode else ""
