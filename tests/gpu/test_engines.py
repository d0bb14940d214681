"""Native engines: profiles, buffers, threads, device tensors, CUDA graphs, and engines that must not be loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from perceiver_deploy import build_engine, load
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.errors import BundleError, InputError
from perceiver_deploy.runtimes.nvidia.families import FAMILIES
from perceiver_deploy.runtimes.nvidia.gpu import find_gpus
from perceiver_deploy.runtimes.settings import RuntimeSettings
from tests.gpu.conftest import require

THREADS = 16
CYCLES = 20
LEAK = 64 << 20
"""Bytes that the driver may keep for itself after sessions were closed."""


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    require(request.param)
    return str(request.param)


@pytest.fixture
def bundle(gpu_bundle: Callable[[str], Path]) -> Path:
    return gpu_bundle("sentiment")


def texts(batch: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(seed).integers(6, 262, (batch, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def copied(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def test_shapes_may_change_from_run_to_run_and_each_gives_what_it_gave_first(bundle: Path, family: str) -> None:
    sizes = [(1, 1), (4, 7), (1, 128), (2, 31), (4, 1), (1, 128)]
    with load(bundle, runtime=family) as session, load(bundle, runtime="onnxruntime") as cpu:
        for batch, length in sizes * 2:
            found, wanted = session.run(texts(batch, length)), cpu.run(texts(batch, length))
            np.testing.assert_allclose(found["logits"], wanted["logits"], atol=1e-4, rtol=1e-4)


def test_shape_beyond_every_profile_is_refused_before_running(bundle: Path, family: str) -> None:
    with load(bundle, runtime=family) as session, pytest.raises(InputError, match="no profile for input_ids"):
        session.run(texts(5, 16))


def test_bucket_is_chosen_by_shape_and_all_give_the_same_numbers(bundle: Path, family: str, tmp_path: Path) -> None:
    copy = copied(bundle, tmp_path)
    capability = [find_gpus().devices[0].compute_capability] if family == "tensorrt-rtx" else None
    shapes = ["length=1:16:32", "length=33:64:128"]
    build_engine(copy, engine=family, shapes=shapes, compute_capabilities=capability, name="buckets")
    with load(copy, runtime=family) as session, load(bundle, runtime="onnxruntime") as cpu:
        for length in (8, 100, 32, 33, 8):
            found, wanted = session.run(texts(1, length)), cpu.run(texts(1, length))
            np.testing.assert_allclose(found["logits"], wanted["logits"], atol=1e-4, rtol=1e-4)


def test_threads_get_their_own_results(bundle: Path, family: str) -> None:
    with load(bundle, runtime=family) as session:
        alone = [session.run(texts(1, 20 + seed, seed))["logits"] for seed in range(THREADS)]
        with ThreadPoolExecutor(THREADS) as pool:
            together = pool.map(lambda seed: session.run(texts(1, 20 + seed, seed))["logits"], [*range(THREADS)] * 8)
        for number, logits in enumerate(together):
            np.testing.assert_array_equal(logits, alone[number % THREADS])


def test_sessions_give_their_memory_back(bundle: Path, family: str) -> None:
    from perceiver_deploy.runtimes.nvidia.cuda_memory import free_memory

    def cycle() -> np.ndarray:
        with load(bundle, runtime=family) as session:
            return session.run(texts(2, 64))["logits"]

    first, free = cycle(), free_memory()
    for _ in range(CYCLES):
        np.testing.assert_array_equal(cycle(), first)
    assert free - free_memory() < LEAK


def test_tensors_on_the_gpu_go_in_and_out_without_a_copy(bundle: Path, family: str) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("the installed torch has no CUDA")
    inputs = texts(2, 40)
    with load(bundle, runtime=family) as session:
        wanted = session.run(inputs)["logits"]
        found = session.run_on_device({name: torch.from_numpy(array).cuda() for name, array in inputs.items()})
        address = found["logits"].pointer
        logits = torch.from_dlpack(found["logits"])
        assert (logits.device.type, logits.data_ptr()) == ("cuda", address)
        np.testing.assert_array_equal(logits.cpu().numpy(), wanted)
        with pytest.raises(InputError, match="DLPack device"):
            session.run_on_device({name: torch.from_numpy(array) for name, array in inputs.items()})


def test_cuda_graphs_give_the_same_bits(bundle: Path, family: str) -> None:
    with (
        load(bundle, runtime=family) as plain,
        load(bundle, runtime=family, settings=RuntimeSettings(cuda_graph=True)) as recorded,
    ):
        for batch, length in [(1, 16), (1, 16), (4, 128), (1, 16), (4, 128)]:
            inputs = texts(batch, length, seed=length)
            np.testing.assert_array_equal(recorded.run(inputs)["logits"], plain.run(inputs)["logits"])


@pytest.mark.parametrize("options", [{"refit": True}, {"strip_weights": True}], ids=["refit", "stripped"])
def test_refittable_and_stripped_engines_give_the_numbers_of_the_plain_one(
    bundle: Path, family: str, tmp_path: Path, options: dict[str, bool]
) -> None:
    copy = copied(bundle, tmp_path)
    capability = [find_gpus().devices[0].compute_capability] if family == "tensorrt-rtx" else None
    with load(copy, runtime=family) as session:
        wanted = session.run(texts(2, 40))["logits"]
    build_engine(copy, engine=family, compute_capabilities=capability, name="changed", **options)
    with load(copy, runtime=family) as session:
        np.testing.assert_allclose(session.run(texts(2, 40))["logits"], wanted, atol=1e-4, rtol=1e-4)


def test_engine_that_was_cut_off_is_refused(bundle: Path, family: str, tmp_path: Path) -> None:
    copy = copied(bundle, tmp_path)
    name = f"fp32-{FAMILIES[family].suffix}"
    with changed_bundle(copy) as (staging, opened):
        content = opened.file(f"engines/{name}.engine").read_bytes()
        staging.path(f"engines/{name}.engine").write_bytes(content[: len(content) // 2])
        staging.finish(opened.manifest)
    with pytest.raises(BundleError, match=r"cannot load the engine.*--force"):
        load(copy, runtime=family)


def test_engine_of_another_version_is_refused_with_the_command(bundle: Path, family: str, tmp_path: Path) -> None:
    copy = copied(bundle, tmp_path)
    name = f"fp32-{FAMILIES[family].suffix}"
    with changed_bundle(copy) as (staging, opened):
        facts = json.loads(opened.file(f"engines/{name}.json").read_text())
        staging.path(f"engines/{name}.json").write_text(json.dumps({**facts, "tensorrt_version": "1.0.0.1"}))
        staging.finish(opened.manifest)
    with pytest.raises(BundleError, match=rf"1\.0\.0\.1.*perceiver-deploy build .* --engine {family}"):
        load(copy, runtime=family)
    assert Bundle.open(copy).manifest.engines
