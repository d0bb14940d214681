"""Models that OpenVINO compiled, kept in the user's cache.

OpenVINO's own cache tells models apart by path and time of change, and believes what it finds. Here a model is known by
the digests of its graph and weights, OpenVINO's version, the processor and every option, and the name of its file has
the digest of its content: what was changed or cut off is compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from perceiver_deploy.cache import Store
from perceiver_deploy.machine import processor_features, processor_kind
from perceiver_deploy.progress import log

COMPILED = Store("openvino", ".blob", most_bytes=4 << 30)


Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of all inputs."""


def compile_model(file: Path, shapes: Shapes | None, options: Mapping[str, Any]) -> openvino.CompiledModel:
    """The model in `file` compiled for the CPU with these options, for inputs of these shapes, or of all it takes.

    Raises:
        RuntimeError: OpenVINO does not take the model.
    """
    if shapes is None:
        return openvino.Core().compile_model(str(file), "CPU", options)
    core = openvino.Core()
    model = core.read_model(str(file))
    model.reshape({name: list(shape) for name, shape in shapes})
    return core.compile_model(model, "CPU", options)


def compile_or_reuse(
    file: Path, digest: str, shapes: Shapes | None, options: Mapping[str, Any]
) -> openvino.CompiledModel:
    """As `compile_model`, kept for the next time; `digest` is that of the model's graph and weights.

    Raises:
        RuntimeError: OpenVINO does not take the model.
    """
    parts = [digest, openvino.__version__, processor_kind(), sorted(processor_features()), dict(options), shapes]
    key = _digest(json.dumps(parts).encode())[:32]
    for path in COMPILED.find(f"{key}-"):
        if (model := _reuse(path, key, options)) is not None:
            return model
        log.info("The compiled model %s cannot be used; it is made again.", path)
    model = compile_model(file, shapes, options)
    _keep(model, key)
    return model


def _reuse(path: Path, key: str, options: Mapping[str, Any]) -> openvino.CompiledModel | None:
    """The model, whose weights stay in the file, mapped into memory; None where it is not whole or is refused."""
    try:
        content = np.memmap(path, dtype=np.uint8, mode="c")
        if path != COMPILED.path(_name(key, content.data)):
            return None
        model = openvino.Core().import_model(openvino.Tensor(content, shared_memory=True), "CPU", options)
    except (OSError, ValueError, RuntimeError):  # ValueError: an empty file cannot be mapped
        return None
    model.content = content  # keeps the mapping as long as the model
    COMPILED.mark_used(path)
    return model


def _keep(model: openvino.CompiledModel, key: str) -> None:
    stream = io.BytesIO()
    model.export_model(stream)
    content = stream.getvalue()
    for path in COMPILED.find(f"{key}-"):  # what cannot be used any more
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    COMPILED.keep(_name(key, content), content, "The compiled model")


def _name(key: str, content: bytes | memoryview) -> str:
    return f"{key}-{_digest(content)[:32]}"


def _digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
