"""Every name that our sources ask of TensorRT is one that its bindings have.

Running an engine needs a GPU, so a misspelt method would be found there first. The bindings of TensorRT-RTX are
installed; those of TensorRT 10 and 11 are in wheels that can be had without the library, whose names are read as text.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from perceiver_deploy.export.engine import build as engine
from perceiver_deploy.runtimes.nvidia import loaded_engine

OBJECTS = {
    loaded_engine: {
        "module": "",
        "self._trt": "",
        "self._runtime": "Runtime",
        "self._engine": "ICudaEngine",
        "context": "IExecutionContext",
        "refitter": "Refitter",
        "parser": "OnnxParserRefitter",
        "self._config": "IRuntimeConfig",
        "config": "IRuntimeConfig",
        "kernels": "IRuntimeCache",
    },
    engine: {
        "trt": "",
        "builder": "Builder",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
    },
}
"""What variables of a module hold; "" is TensorRT itself."""
RTX_ONLY = {
    *("CudaGraphStrategy", "cuda_graph_strategy", "create_runtime_cache", "set_runtime_cache", "get_runtime_cache"),
    *("serialize", "deserialize", "ComputeCapability"),
}
"""Asked of TensorRT-RTX alone, see `Family`."""


def asked() -> set[tuple[str, str]]:
    """Pairs of a class and an attribute."""
    found = set()
    for module, objects in OBJECTS.items():
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and (holder := ast.unparse(node.value)) in objects:
                found.add((objects[holder], node.attr))
    return found


def test_bindings_of_tensorrt_rtx_have_every_name() -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13")
    assert len(asked()) > 30
    absent = [(kind, name) for kind, name in asked() if not hasattr(getattr(rtx, kind) if kind else rtx, name)]
    assert absent == []


@pytest.mark.full
@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
def test_bindings_of_tensorrt_have_every_name(version: str, tmp_path: Path) -> None:
    package = f"tensorrt-cu13-bindings=={version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), package]
    subprocess.run(pip, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        text = b"\n".join(wheel.read(f"tensorrt_bindings/{name}") for name in ("tensorrt.so", "__init__.py"))
    absent = {
        name for _, name in asked() - {pair for pair in asked() if pair[1] in RTX_ONLY} if name.encode() not in text
    }
    assert absent == set()
