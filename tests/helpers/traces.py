"""A model that is traced a second time in a session gets the first graph: tracing is most of a small export."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import nn

_MOST_BYTES = 32_000_000


class Traces:
    """`torch.onnx.export` with a memory that the workers share: one trace per module, weights and options.

    A module is the same when its pickle is, tensors by content; one that cannot be pickled is always traced. What is
    patched into a class or a module of Python is not seen: a test that does that, or is about tracing itself, takes
    the fixture `traced_afresh`.
    """

    def __init__(self, export: Callable[..., Any], folder: Path) -> None:
        self.export = export
        self._folder = folder

    def __call__(self, model: nn.Module, **options: Any) -> Any:
        """What `torch.onnx.export` gives, as far as `trace_model` reads it; the first time from the file, too."""
        key = _key(model, options)
        if key is None:
            return self.export(model, **options)
        graph, ranges = self._folder / f"{key}.onnx", self._folder / f"{key}.json"
        if not ranges.exists():
            program = self.export(model, **options)
            _write(graph, ir.to_proto(program.model).SerializeToString())
            _write(ranges, json.dumps(_bounds(program.exported_program.range_constraints)).encode())
        constraints = {name: SimpleNamespace(lower=least, upper=most) for name, (least, most) in _read(ranges).items()}
        return SimpleNamespace(
            model=ir.from_proto(onnx.load(graph)), exported_program=SimpleNamespace(range_constraints=constraints)
        )


def _bounds(ranges: dict[Any, Any]) -> dict[str, tuple[int, int]]:
    return {str(symbol): (int(each.lower), int(min(each.upper, sys.maxsize))) for symbol, each in ranges.items()}


def _read(file: Path) -> dict[str, tuple[int, int]]:
    return dict(json.loads(file.read_bytes()))


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all: another worker may trace the same."""
    written = file.with_suffix(f".{os.getpid()}")
    written.write_bytes(content)
    written.replace(file)


class _ByContent(pickle.Pickler):
    """Tensors as their type, shape and bytes."""

    def reducer_override(self, found: Any) -> Any:
        if isinstance(found, torch.Tensor):
            content = found.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            return tuple, ((str(found.dtype), tuple(found.shape), found.requires_grad, content),)
        return NotImplemented


def _key(model: nn.Module, options: dict[str, Any]) -> str | None:
    """A digest of all that the trace depends on, or None for a large module or one that cannot be told from others."""
    if sum(tensor.nbytes for tensor in model.state_dict().values()) > _MOST_BYTES:
        return None
    examples = {name: (str(array.dtype), tuple(array.shape)) for name, array in options["kwargs"].items()}
    translations = {str(name): made.__qualname__ for name, made in options["custom_translation_table"].items()}
    others = {name: value for name, value in options.items() if name not in ("kwargs", "custom_translation_table")}
    content = io.BytesIO()
    with suppress(pickle.PicklingError, AttributeError, TypeError):
        _ByContent(content).dump(model)
        return hashlib.sha256(content.getvalue() + repr((examples, translations, others)).encode()).hexdigest()
    return None
