"""Golden samples on processors without INT8 dot products: what conforms passes, what does not is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PerceiverConfig, PerceiverForImageClassificationFourier

from perceiver_deploy import cache as cache_module
from perceiver_deploy import convert_bundle, export_model, load
from perceiver_deploy.machine import has_int8_products
from perceiver_deploy.model.checkpoints.load import shipped_names
from tests.processors.emulation import BUILD, HERE, QEMU_MODELS, Processor, processor

MARKS = {"digits": (), "sentiment": pytest.mark.slow}
PRECISIONS = ("fp32", "int8", "int8-cpu", "int8-weights")


@pytest.fixture(
    scope="session",
    params=[pytest.param(kind, marks=() if kind == "avx2" else pytest.mark.slow) for kind in QEMU_MODELS],
)
def lesser(request: pytest.FixtureRequest) -> Processor:
    """A processor of a kind that has no INT8 dot products."""
    found = processor(request.param)
    if found is None:
        subprocess.run(["sh", HERE.parent / "fetch_package.sh", BUILD / "qemu", "qemu-user"], check=False)
        found = processor(request.param)
    if found is None:
        assert not os.environ.get("CI"), "CI needs a way to run as on another processor"
        pytest.skip("neither may CPUID be masked on this processor, nor is qemu-x86_64 here")
    return found


@pytest.fixture(scope="session")
def converted(shared_bundle: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A shipped bundle with all its INT8 variants."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            path = Path(shutil.copytree(shared_bundle(name), tmp_path_factory.mktemp("converted") / name))
            convert_bundle(path, calibration=name, samples=64)
            convert_bundle(path, calibration=name, samples=64, target="cpu")
            convert_bundle(path, precision="int8-weights")
            made[name] = path
        return made[name]

    return get


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MARKS.get(name, pytest.mark.full)) for name in shipped_names()]
)
def test_golden_samples_of_every_variant_conform_without_int8_dot_products(name, lesser, converted, tmp_path):
    arguments = ["-m", "perceiver_deploy.cli", "validate", str(converted(name)), "--golden", "--threads", "1", "--json"]
    done = lesser.run(*arguments, cache=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    verdicts = json.loads(done.stdout)["verdicts"]
    assert {(v["runtime"], v["variant"]) for v in verdicts} == {
        (runtime, variant) for runtime in ("onnxruntime", "openvino") for variant in PRECISIONS
    }
    for verdict in verdicts:
        assert verdict["passed"], verdict
        assert (verdict["graph_error"] is None) == (verdict["precision"] == "fp32")


SESSION = """
import sys
from perceiver_deploy import load
from perceiver_deploy.machine import processor_kind
from perceiver_deploy.bundle.samples import load_sample
print(processor_kind())
bundle, variant, runtime = sys.argv[1:4]
session = load(bundle, variant=variant, runtime=runtime, threads=1, allow_nonconforming=len(sys.argv) > 4)
print(session.runtime, session.conforms)
"""


@pytest.fixture(scope="session")
def saturating(shared_bundle: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose INT8 weights use all levels, as those of other packages do."""

    torch.manual_seed(0)
    config = PerceiverConfig(
        num_latents=29,
        d_latents=64,
        num_blocks=2,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=1,
        d_model=261,
        image_size=48,
        num_labels=1000,
    )
    model = PerceiverForImageClassificationFourier(config).eval()
    folder = tmp_path_factory.mktemp("saturating")
    model.save_pretrained(folder / "checkpoint")
    export_model(folder / "checkpoint", folder / "bundle")
    pixels = np.random.default_rng(0).standard_normal((8, 3, 48, 48)).astype(np.float32)
    np.savez(folder / "calibration.npz", pixel_values=pixels)
    convert_bundle(folder / "bundle", calibration=folder / "calibration.npz", target="vnni")
    return folder / "bundle"


def test_a_session_whose_sums_saturate_is_refused_and_auto_takes_another(lesser, saturating, tmp_path):
    if lesser.kind == "sse4.2":
        pytest.skip("onnxruntime's kernels for SSE4.2 do not saturate")
    refused = lesser.run("-c", SESSION, str(saturating), "int8-vnni", "onnxruntime", cache=tmp_path)
    assert refused.returncode != 0
    assert "does not give the numbers of its own graph on this processor" in refused.stderr
    assert "no INT8 dot products" in refused.stderr
    taken = lesser.run("-c", SESSION, str(saturating), "int8-vnni", "auto", cache=tmp_path)
    assert taken.returncode == 0, taken.stderr
    assert taken.stdout.splitlines()[1] == "openvino True"
    assert "The next runtime is tried" in taken.stderr
    allowed = lesser.run("-c", SESSION, str(saturating), "int8-vnni", "onnxruntime", "allowed", cache=tmp_path)
    assert allowed.stdout.splitlines()[1] == "onnxruntime False"


def test_a_verdict_of_another_processor_is_not_taken_over(lesser, saturating, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "cache_directory", lambda: tmp_path)
        with load(
            saturating, variant="int8-vnni", runtime="onnxruntime", threads=1, allow_nonconforming=True
        ) as session:
            here = session.conforms
    there = lesser.run("-c", SESSION, str(saturating), "int8-vnni", "onnxruntime", "allowed", cache=tmp_path)
    assert there.stdout.splitlines()[1] == f"onnxruntime {lesser.kind != 'avx2'}"
    assert here is (has_int8_products() is True)
