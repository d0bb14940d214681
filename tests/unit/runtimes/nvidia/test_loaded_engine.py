"""What `LoadedEngine` does with buffers, profiles and graphs, on a device made of host memory; see tests/gpu too."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiver_deploy import cache as cache_module
from perceiver_deploy import load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.errors import BundleError, InputError
from perceiver_deploy.runtimes.nvidia import loaded_engine
from perceiver_deploy.runtimes.nvidia.dlpack import Borrowed
from perceiver_deploy.runtimes.nvidia.families import FAMILIES, FamilyName
from perceiver_deploy.runtimes.nvidia.loaded_engine import LoadedEngine
from perceiver_deploy.runtimes.nvidia.profiles import input_profile, parse_shapes
from perceiver_deploy.runtimes.nvidia.side_car import SideCar
from perceiver_deploy.runtimes.settings import RuntimeSettings
from tests.helpers.host_device import HostCuda, HostTensorRT, view
from tests.unit.runtimes.nvidia.test_side_car import FACTS

cuda_memory = pytest.importorskip("perceiver_deploy.runtimes.nvidia.cuda_memory", reason="needs cuda-bindings")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostCuda]:
    """Every byte of it was given back when the test ends."""
    gc.freeze()  # only what the test made is searched: a worker holds millions of objects
    found = HostCuda()
    monkeypatch.setattr(cuda_memory, "cuda", found)
    yield found
    gc.collect()
    assert found.memory == {}
    loaded_engine._logger.cache_clear()


@pytest.fixture
def bundle(shared_bundle: Callable[[str], Path]) -> Bundle:
    return Bundle.open(shared_bundle("text_classification"))


def opened(
    bundle: Bundle,
    device: HostCuda,
    *,
    family: FamilyName = "tensorrt",
    cuda_graph: bool = False,
    content: bytes | None = None,
) -> LoadedEngine:
    """An engine with two buckets of lengths."""
    stage = bundle.manifest.stages["full"]
    sizes = parse_shapes(["length=1:8:16", "length=17:24:32", "batch=1:2:4"], bundle.manifest.axes)
    axes = [{axis: each._asdict() for axis, each in profile.items()} for profile in sizes]
    profiles = [{name: shapes._asdict() for name, shapes in input_profile(stage, profile).items()} for profile in sizes]
    facts: dict[str, Any] = {**FACTS, "engine": family, "axes": axes, "shape_profiles": profiles}
    return LoadedEngine(
        FAMILIES[family],
        HostTensorRT(device, stage),
        content or bundle.file("onnx/fp32.onnx").read_bytes(),
        SideCar.model_validate(facts),
        None,
        RuntimeSettings(cuda_graph=cuda_graph),
        "digest",
    )


def texts(batch: int, length: int) -> dict[str, np.ndarray[Any, Any]]:
    ids = np.random.default_rng(batch * length).integers(6, 100, (batch, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@pytest.mark.parametrize("cuda_graph", [False, True], ids=["plain", "graphs"])
def test_each_shape_gives_its_own_numbers_however_they_follow_each_other(
    bundle: Bundle, device: HostCuda, cuda_graph: bool
) -> None:
    engine = opened(bundle, device, cuda_graph=cuda_graph)
    sizes = [(1, 8), (1, 8), (4, 16), (1, 8), (2, 32), (1, 1), (4, 16), (2, 32)]
    kept = []
    with load(bundle, "onnxruntime") as session:
        for batch, length in sizes:
            found, wanted = engine.run(texts(batch, length)), session.run(texts(batch, length))
            kept.append((found["logits"], wanted["logits"]))
    for logits, expected in kept:  # later runs have not written over them
        np.testing.assert_allclose(logits, expected, atol=1e-6)
    assert device.launches == (3 if cuda_graph else 0)  # (4, 16) and (2, 32) moved buffers, and with them all graphs
    engine.close()


def test_buffers_are_used_again_and_grow_only_for_larger_shapes(bundle: Bundle, device: HostCuda) -> None:
    engine = opened(bundle, device)
    engine.run(texts(4, 32))
    held = set(device.memory)
    for batch, length in [(1, 1), (4, 32), (2, 20)]:
        engine.run(texts(batch, length))
    assert set(device.memory) == held
    engine.close()


def test_there_is_one_context_a_profile_made_when_it_is_first_needed(bundle: Bundle, device: HostCuda) -> None:
    engine = opened(bundle, device)
    for length, contexts in [(8, 1), (16, 1), (17, 2), (8, 2), (32, 2)]:
        engine.run(texts(1, length))
        assert engine._engine.contexts == contexts
    engine.close()


def test_shape_of_no_profile_is_refused_and_the_engine_goes_on(bundle: Bundle, device: HostCuda) -> None:
    engine = opened(bundle, device)
    with pytest.raises(InputError, match=r"no profile for input_ids \[5, 8\]"):
        engine.run(texts(5, 8))
    assert engine.run(texts(4, 8))["logits"].shape[0] == 4
    engine.close()


def test_tensors_on_the_device_are_read_in_place_and_outputs_have_memory_of_their_own(
    bundle: Bundle, device: HostCuda
) -> None:
    engine = opened(bundle, device, cuda_graph=True)
    arrays, outputs = [texts(2, 8), texts(2, 20)], []
    for inputs in arrays:
        lent = {name: Borrowed(array.ctypes.data, array.shape, array.dtype, array) for name, array in inputs.items()}
        outputs.append(engine.run_borrowed(lent, 0)["logits"])
    engine.run(texts(4, 32))
    with load(bundle, "onnxruntime") as session:
        for inputs, logits in zip(arrays, outputs, strict=True):
            expected = session.run(inputs)["logits"]
            np.testing.assert_allclose(view(logits.pointer, logits.shape, "float32"), expected, atol=1e-6)
            assert logits.__dlpack_device__() == (2, 0)
    engine.close()


def test_tensorrt_rtx_records_graphs_itself_and_its_kernels_are_kept_for_the_next_session(
    bundle: Bundle, device: HostCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "cache_directory", lambda: tmp_path)
    for cuda_graph, strategy, content in [(True, "whole graph", b""), (False, "disabled", b"kernel,")]:
        engine = opened(bundle, device, family="tensorrt-rtx", cuda_graph=cuda_graph)
        engine.run(texts(1, 8))
        assert engine._engine.config.cuda_graph_strategy == strategy
        assert engine._engine.config.kernels.content == content
        assert device.launches == 0
        engine.close()
    (kept,) = (tmp_path / "kernels").iterdir()
    assert kept.read_bytes() == b"kernel,kernel,"


def test_engine_that_cannot_be_read_says_why_and_what_to_do(bundle: Bundle, device: HostCuda) -> None:
    with pytest.raises(BundleError, match=r"cannot load the engine: Serialization assertion failed\. Build it again"):
        opened(bundle, device, content=b"cut off")
