"""The C++ library on a GPU: what Python's runtime of that name gives. `make cpp` builds it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perceiver_deploy import load
from perceiver_deploy.errors import MissingError
from perceiver_deploy.runtimes.nvidia.families import FAMILIES
from perceiver_deploy.runtimes.nvidia.requirements import PLUGIN_MODULE
from tests.cpp.c_abi import Library, Session
from tests.cpp.conftest import library, onnxruntime_library  # noqa: F401 (fixtures)
from tests.cpp.test_parity import inputs_at_shapes

BOUND = 1e-5
"""Relative L2. Both run the same graph or engine; kernels may be chosen anew in each session."""


def options_of(runtime: str) -> dict[str, object]:
    """Where the libraries are that Python's packages brought."""
    if runtime == "onnxruntime-tensorrt-rtx":
        return {"plugin": importlib.import_module(PLUGIN_MODULE).get_library_path()}
    if family := FAMILIES.get(runtime):  # type: ignore[call-overload]
        folder = Path(str(importlib.import_module(f"{family.module}_libs").__path__[0]))
        stem = "libtensorrt_rtx.so" if family.ahead_of_time else "libnvinfer.so"
        return {"library": next(folder.glob(f"{stem}.*"))}
    return {}


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_cpp_gives_what_python_gives(
    runtime: str,
    variant: str,
    gpu_bundle: Callable[[str], Path],
    library: Library,  # noqa: F811
) -> None:
    bundle = gpu_bundle("digits")
    try:
        cpp = Session(library, bundle, runtime=runtime, variant=variant, **options_of(runtime))
    except MissingError as error:
        if "this library was built" in str(error):
            pytest.skip(str(error))
        raise
    with cpp, load(bundle, runtime, variant) as python:
        assert cpp.text("runtime") == runtime
        for inputs in inputs_at_shapes(bundle)[:2]:
            expected, found = python.run(inputs), cpp.run(inputs)
            for name, array in expected.items():
                assert found[name].shape == array.shape
                assert np.linalg.norm(found[name] - array) <= BOUND * np.linalg.norm(array)
