"""Set-up of every test: one torch thread, no telemetry, no network, and bundles that are exported once a session."""

from __future__ import annotations

import copy
import fcntl
import functools
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from perceiver_deploy import cache as cache_module
from perceiver_deploy.data.sets import furniture
from perceiver_deploy.export.engine import build as engine
from perceiver_deploy.export.passes import driver
from perceiver_deploy.machine import has_int8_products, processor_kind
from perceiver_deploy.runtimes.nvidia import onnxruntime as onnxruntime_gpu
from tests.helpers.factories import directory_content
from tests.helpers.task_factories import MODELS, named_model
from tests.helpers.traces import Traces

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)  # the suite runs one process a core
gc.freeze()  # what was imported is not searched for garbage again and again, which is a tenth of a small export
gc.set_threshold(50_000, 20, 20)


def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of a session share."""
    root = tmp_path_factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


CACHE_VARIABLE = "PERCEIVER_DEPLOY_CACHE"
_NO_PRODUCTS = "needs a processor with INT8 dot products"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip by name what only a processor with INT8 dot products can show."""
    if has_int8_products() is False:
        for item in items:
            if item.get_closest_marker("int8_products"):
                item.add_marker(pytest.mark.skip(reason=_NO_PRODUCTS))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say on which processor the tests ran, and how many of them need another."""
    skipped = [
        report.nodeid
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and _NO_PRODUCTS in report.longrepr[2]
    ]
    terminalreporter.write_line(f"{processor_kind()}: {len(skipped)} tests skipped because it has no INT8 dot products")
    for name in skipped:
        terminalreporter.write_line(f"  {name}")


@pytest.fixture(scope="session", autouse=True)
def one_table_of_operators() -> Iterator[None]:
    """PyTorch's exporter makes its table of operators anew for each export: a sixth of a small one."""
    table = functools.cache(ONNXRegistry.from_torchlib)

    def copied(opset_version: int) -> ONNXRegistry:
        registry = copy.copy(table(opset_version))
        registry.functions = {operator: list(found) for operator, found in registry.functions.items()}
        return registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(copied))
        yield


@pytest.fixture(scope="session", autouse=True)
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """A model is traced once a session, whichever tests export it; what follows the trace is done each time."""
    folder = session_folder(tmp_path_factory) / "traces"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        kept = Traces(torch.onnx.export, folder)
        patch.setattr(torch.onnx, "export", kept)
        yield kept


@pytest.fixture
def traced_afresh(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model that the test exports is traced for it."""
    monkeypatch.setattr(torch.onnx, "export", traces.export)


@pytest.fixture(scope="session", autouse=True)
def caches_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models that tests compile and engines that they build are kept, as a user's are, but not among the user's."""
    folder, real, users = tmp_path_factory.mktemp("cache"), cache_module.cache_directory, os.environ.get(CACHE_VARIABLE)

    def apart(store: cache_module.Store | None = None) -> Path:
        """Unless a test names a cache of its own; prepared data are kept with the files that they are made of."""
        if store is furniture.PREPARED:
            return real()
        named = cache_module.cache_directory is not real or os.environ.get(CACHE_VARIABLE) != users
        return cache_module.cache_directory() if named else folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module.Store, "folder", property(lambda store: apart(store) / store._folder))
        for module in (engine, onnxruntime_gpu):
            patch.setattr(module, "cache_directory", apart)
        yield


@pytest.fixture(scope="session", autouse=True)
def checked_passes() -> Iterator[None]:
    """Every graph that a test exports or converts is what each pass requires and ensures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "CHECK", True)
        yield


@pytest.fixture(scope="session")
def shared_bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """`shared_bundle(name)` is a bundle of a small model or a shipped checkpoint, which has passed the gate.

    `shared_bundle(name, "int8")` has that variant too, of a shipped checkpoint calibrated on its data set.

    READ ONLY: every test of the session sees the same.

    The end of the session fails when a file of it was changed. A test that changes a bundle takes `copied_bundle`.
    """
    root = session_folder(tmp_path_factory)
    contents: dict[Path, dict[str, bytes]] = {}
    failures: dict[Path, Exception] = {}

    def make(name: str, precision: str | None, path: Path) -> None:
        from perceiver_deploy.pipeline.convert.convert import convert_bundle
        from perceiver_deploy.pipeline.export.export import export_model

        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return
            if precision is None:
                export_model(named_model(name) if name in MODELS else name, path)
                return
            copy = shutil.copytree(get(name), path.with_suffix(f".{os.getpid()}"))
            convert_bundle(copy, precision=precision, calibration=name)
            copy.rename(path)

    def get(name: str, precision: str | None = None) -> Path:
        path = root / f"shared-{name}{'' if precision is None else f'-{precision}'}"
        if path in failures:
            raise failures[path]  # once is slow enough
        if path not in contents:
            try:
                make(name, precision, path)
            except Exception as error:
                failures[path] = error
                raise
            contents[path] = directory_content(path)
        return path

    yield get
    for path, content in contents.items():
        assert directory_content(path) == content, f"a test changed {path}; it must use copied_bundle"


@pytest.fixture
def copied_bundle(shared_bundle: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """`copied_bundle(name)` is a copy that the test may change."""

    def get(name: str) -> Path:
        return Path(shutil.copytree(shared_bundle(name), tmp_path / f"copied-{name}"))

    return get


@pytest.fixture
def all_cores() -> Iterator[None]:
    """Let torch use every core: for full-size models."""
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(1)
