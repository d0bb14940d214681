"""An ONNX model on disk: one file, or one with the weights in a second file beside it, `NAME.onnx.data`."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx_ir as ir

from perceiver_deploy.bundle.manifest import DATA_SUFFIX
from perceiver_deploy.bundle.onnx_header import external_files
from perceiver_deploy.export.options import EXTERNAL_ABOVE


def write_graph(model: ir.Model, path: Path, external_above: int = EXTERNAL_ABOVE) -> None:
    """Write a model; weights of more than `external_above` bytes in all go to a second file, one tensor at a time.

    Small tensors (256 bytes) stay in the first file: engines need shapes and axes before they read any weight.
    """
    tensors = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    external = sum(tensor.nbytes for tensor in tensors) > external_above
    ir.save(model, path, external_data=path.name + DATA_SUFFIX if external else None)


def model_files(path: Path) -> list[Path]:
    """The ONNX file and the files that it reads its weights from.

    Raises:
        BundleError: not an ONNX file, or weights that are not beside it.
    """
    return [path, *external_files(path)]


def external_above(path: Path) -> int:
    """What `write_graph` takes so that a model made of this one keeps its weights where this one does."""
    return 0 if len(model_files(path)) > 1 else EXTERNAL_ABOVE


def stored_bytes(path: Path) -> int:
    """Size of a model on disk, its weights included."""
    return sum(file.stat().st_size for file in model_files(path))


def copy_model(path: Path, folder: Path) -> Path:
    """Copy a model with its weights to a folder; returns the copy's path."""
    for file in model_files(path):
        target = folder / file.relative_to(path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return folder / path.name
