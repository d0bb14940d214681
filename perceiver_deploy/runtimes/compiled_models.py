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

import openvino

from perceiver_deploy.cache import cache_directory, write_whole
from perceiver_deploy.machine import processor_name
from perceiver_deploy.progress import log

MOST_BYTES = 4 << 30
"""What all of them may take; those used least recently make room."""


def compile_or_reuse(file: Path, digest: str, options: Mapping[str, Any]) -> openvino.CompiledModel:
    """The model in `file`, whose graph and weights have that digest, compiled for the CPU with these options.

    Raises:
        RuntimeError: OpenVINO does not take the model.
    """
    core, folder = openvino.Core(), cache_directory() / "openvino"
    key = _digest(json.dumps([digest, openvino.__version__, processor_name(), dict(options)]).encode())[:32]
    for path in folder.glob(f"{key}-*.blob"):
        with contextlib.suppress(OSError, RuntimeError):
            content = path.read_bytes()
            if path.name == _name(key, content):
                model = core.import_model(content, "CPU", options)
                _mark_used(path)
                return model
        log.info("The compiled model %s cannot be used; it is made again.", path)
    model = core.compile_model(str(file), "CPU", options)
    _keep(model, folder, key)
    return model


def _keep(model: openvino.CompiledModel, folder: Path, key: str) -> None:
    stream = io.BytesIO()
    model.export_model(stream)
    content = stream.getvalue()
    try:
        _make_room(folder, key, len(content))
        write_whole(folder / _name(key, content), content)
    except OSError as error:
        log.info("The compiled model is not kept for the next time: %s", error)


def _mark_used(path: Path) -> None:
    with contextlib.suppress(OSError):  # a cache that can only be read
        path.touch()


def _make_room(folder: Path, key: str, needed: int) -> None:
    """Delete what the new model replaces, then the models used least recently."""
    for path in folder.glob(f"{key}-*.blob"):
        path.unlink(missing_ok=True)
    found = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*.blob"))
    total = sum(size for _, size, _ in found) + needed
    for _, size, path in found:
        if total <= MOST_BYTES:
            break
        path.unlink(missing_ok=True)
        total -= size


def _name(key: str, content: bytes) -> str:
    return f"{key}-{_digest(content)[:32]}.blob"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
