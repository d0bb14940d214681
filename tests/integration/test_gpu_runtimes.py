"""Runtimes that need a GPU, where something of them is missing: each exits 5, names the piece and what brings it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from perceiver_deploy import build_engine, load
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.cli.main import main
from perceiver_deploy.errors import BundleError, MissingError
from perceiver_deploy.runtimes.catalogue import GPU_RUNTIMES
from perceiver_deploy.runtimes.nvidia.gpu import find_gpus
from perceiver_deploy.runtimes.nvidia.requirements import missing_pieces

pytestmark = pytest.mark.skipif(find_gpus().problem is None, reason="there is a GPU: see tests/gpu")

NAMED = {
    "onnxruntime-cuda": ["CUDAExecutionProvider", "perceiver-deploy[cuda]"],
    "onnxruntime-tensorrt": ["TensorrtExecutionProvider", "perceiver-deploy[cuda]"],
    "onnxruntime-tensorrt-rtx": ["pip install onnxruntime-ep-nv-tensorrt-rtx-cu13"],
    "tensorrt": ["'tensorrt'", "perceiver-deploy[trt]"],
    "tensorrt-rtx": ["no NVIDIA driver (libcuda.so.1)"],
}


@pytest.fixture(scope="module")
def bundle(shared_bundle: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an engine of TensorRT-RTX, and one that says it is TensorRT's, which cannot be built here."""
    pytest.importorskip("tensorrt_rtx", reason="building engines needs tensorrt-rtx-cu13")
    path = Path(shutil.copytree(shared_bundle("text_classification"), tmp_path_factory.mktemp("gpu") / "bundle"))
    build_engine(path)
    return path


@pytest.mark.parametrize("runtime", GPU_RUNTIMES)
def test_what_is_missing_is_named_with_what_brings_it(runtime: str) -> None:
    pieces = "; ".join(missing_pieces(runtime))
    for part in [*NAMED[runtime], "no NVIDIA driver (libcuda.so.1)"]:
        assert part in pieces


@pytest.mark.parametrize("runtime", [name for name in GPU_RUNTIMES if name != "tensorrt"])
def test_session_is_refused_before_anything_is_loaded(bundle: Path, runtime: str) -> None:
    with pytest.raises(MissingError, match="no NVIDIA driver") as caught:
        load(bundle, runtime=runtime)
    assert caught.value.exit_code == 5
    for part in NAMED[runtime]:
        assert part in str(caught.value)


def test_bundle_without_an_engine_says_how_to_build_one(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"build .* --engine tensorrt --variant fp32"):
        load(bundle, runtime="tensorrt")


def test_engine_that_was_cut_off_is_not_loaded(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    engine = copy / "engines/fp32-rtx.engine"
    engine.write_bytes(engine.read_bytes()[:1000])
    with pytest.raises(BundleError, match="was changed"):
        Bundle.open(copy).file("engines/fp32-rtx.engine")


@pytest.mark.parametrize("content", ["{}", "no JSON", "[]"])
def test_side_car_that_is_none_says_to_build_again(bundle: Path, tmp_path: Path, content: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    with changed_bundle(copy) as (staging, opened):
        staging.path("engines/fp32-rtx.json").write_text(content)
        staging.finish(opened.manifest)
    with pytest.raises(BundleError, match=r"fp32-rtx\.json is not the side-car of an engine.*--force"):
        load(copy, runtime="tensorrt-rtx")


def test_run_on_a_gpu_runtime_exits_5_with_one_paragraph(bundle: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be")
    result = CliRunner().invoke(main, ["run", str(bundle), str(text), "--runtime", "tensorrt-rtx"])
    assert result.exit_code == 5
    assert "no NVIDIA driver" in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_lists_every_gpu_runtime_with_what_is_missing() -> None:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    found = json.loads(result.stdout)["gpu_runtimes"]
    assert found == {runtime: missing_pieces(runtime) for runtime in GPU_RUNTIMES}


@pytest.mark.full
@pytest.mark.parametrize(
    ("package", "runtime", "part"),
    [
        ("onnxruntime-gpu==1.31.1", "onnxruntime-cuda", "libcublasLt.so.13 is not here"),
        ("onnxruntime-gpu==1.31.1", "onnxruntime-tensorrt", "libcublas.so.13 is not here"),
        ("onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0", "onnxruntime-tensorrt-rtx", "no NVIDIA driver"),
    ],
)
def test_installed_provider_without_its_libraries_names_the_first(
    package: str, runtime: str, part: str, bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), package]
    subprocess.run(pip, check=True)
    program = "import sys; from perceiver_deploy.cli.main import main; main(['run', *sys.argv[1:]])"
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be")
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", program, str(bundle), str(text), "--runtime", runtime],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5, done.stderr
    assert part in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
