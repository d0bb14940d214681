"""Engines of shipped, small and full-size models, built without a GPU for three compute capabilities in one file."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from perceiver_deploy import build_engine, convert_bundle
from perceiver_deploy import cache as cache_module
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.model.checkpoints.load import shipped_names

pytest.importorskip("tensorrt_rtx", reason="building engines needs tensorrt-rtx-cu13")
pytest.importorskip("polygraphy", reason="building engines needs polygraphy")

ROOT = Path(__file__).parents[2]
CAPABILITIES = ["8.6", "8.9", "12.0"]
SAMPLES = 32
"""The fewest that are not warned of: how an engine is built does not depend on the ranges."""
GEMMS = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}

FULL_SIZE = ("full-fourier", "full-conv", "full-language", "full-flow")


@pytest.fixture
def passing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for models and engines, deleted at the end: those of full size take gigabytes."""
    monkeypatch.setattr(cache_module, "cache_directory", lambda: tmp_path)
    yield tmp_path
    shutil.rmtree(tmp_path)


def check_engine(path: Path, precision: str, calibration: str) -> None:
    """Convert and build with every axis dynamic, and see that most matrix products are of that precision."""
    if precision != "fp32":
        convert_bundle(path, precision=precision, calibration=calibration, samples=SAMPLES)
    facts = build_engine(path, variant=precision, compute_capabilities=CAPABILITIES).facts
    assert facts["compute_capabilities"] == CAPABILITIES
    assert next(iter(facts["gemm_dtypes"])) == GEMMS[precision]  # the most frequent
    axes = Bundle.open(path).manifest.axes
    fixed = [axis for axis, sizes in facts["axes"][0].items() if sizes["min"] == sizes["max"]]
    assert fixed == [axis for axis in axes if axes[axis].min == axes[axis].max]


@pytest.mark.parametrize("precision", GEMMS)
def test_small_image_model_is_built_in_every_precision(
    precision: str, copied_bundle: Callable[[str], Path], tmp_path: Path
) -> None:
    path = copied_bundle("fourier")
    axes = Bundle.open(path).manifest.axes
    images = np.random.default_rng(0).standard_normal((4, 3, axes["height"].opt, axes["width"].opt), np.float32)
    np.savez(tmp_path / "images.npz", pixel_values=images)
    check_engine(path, precision, str(tmp_path / "images.npz"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "breast-cancer" else pytest.mark.slow) for name in shipped_names()]
)
def test_every_shipped_checkpoint_is_built_in_every_precision(name: str, copied_bundle: Callable[[str], Path]) -> None:
    path = copied_bundle(name)
    for precision in GEMMS:
        check_engine(path, precision, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_published_full_size_configuration_is_built(
    name: str, passing_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    bundle = importlib.import_module("engines").export(name, passing_folder)
    check_engine(bundle, "fp32", name)
