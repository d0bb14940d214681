"""What TensorRT says while it builds, kept off stdout, made readable, and mined for facts about the engine.

An engine can only be inspected on a GPU, but the builder's log describes it: layers, their types, memory.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# TensorRT looks for a GPU whenever it reports an error, and reports that it has found none.
_NO_GPU = "catchCudaError"
# Said of every input of int64, which is what our graphs mean.
_INT64 = "has Int64 binding"
_REASONS = (
    re.compile(r'&& "(.+?)"', re.DOTALL),
    re.compile(r"Error Code \d+: [^(]*\((?:\[[^]]*] )?(.+?)\.? In \w+ at ", re.DOTALL),
    re.compile(r"Assertion failed: (?:[^ ]*: )?(.+)", re.DOTALL),
)
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")
_LAYER = re.compile(r"Name: .*?, LayerType: (\w+), Inputs: \[(?: { Name: .*?, Datatype: (\w+))?")
_one_build_at_a_time = threading.Lock()


class BuilderLog(logging.Handler):
    """Messages of one build, in the order they came."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self._lines: list[str] = []
        self._layers = ""
        self._activation_bytes: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message, and what it tells apart."""
        text = record.getMessage()
        self._lines.append(f"[{record.levelname}] {text}")
        if record.levelno >= logging.ERROR:
            self.errors += [text] if _NO_GPU not in text else []
        elif record.levelno >= logging.WARNING:
            self.warnings += [text] if _INT64 not in text else []
        elif text.startswith("Layers:"):
            self._layers = text
        elif match := _ACTIVATIONS.match(text):
            self._activation_bytes.append(int(match[1]))

    def text(self) -> str:
        """The whole log; that of a large model has 80,000 lines."""
        return "\n".join(self._lines) + "\n"

    def facts(self) -> dict[str, Any]:
        """Layers by type, inputs of the matrix multiplications by dtype, memory reserved at the largest shapes.

        Null where this version of TensorRT did not say. With several compute capabilities, layers are of the last.
        """
        layers = _LAYER.findall(self._layers)
        return {
            "layers": dict(Counter(kind for kind, _ in layers).most_common()) or None,
            "gemm_dtypes": dict(Counter(dtype for kind, dtype in layers if kind == "gemm").most_common()) or None,
            "activation_bytes": max(self._activation_bytes, default=None),
            "warnings": self.warnings,
        }


@contextmanager
def new_builder_log() -> Iterator[BuilderLog]:
    """Collect messages instead of printing them: Polygraphy's logger, which TensorRT's feeds, writes to stdout."""
    from polygraphy.logger import G_LOGGER

    ours = {"use_python_logging_system": True, "colors": False, "letter": False, "once_logged": set()}
    handler, logger = BuilderLog(), logging.getLogger("Polygraphy")
    with _one_build_at_a_time, G_LOGGER.verbosity(G_LOGGER.EXTRA_VERBOSE), warnings.catch_warnings():
        # Polygraphy sets a timing cache, which TensorRT-RTX has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = {name: getattr(G_LOGGER, name) for name in ours}
        level, propagate = logger.level, logger.propagate
        try:
            for name, value in ours.items():
                setattr(G_LOGGER, name, value)
            logger.setLevel(1)
            logger.propagate = False
            logger.addHandler(handler)
            yield handler
        finally:
            for name, value in theirs.items():
                setattr(G_LOGGER, name, value)
            logger.setLevel(level)
            logger.propagate = propagate
            logger.removeHandler(handler)


def readable_reason(text: str) -> str:
    """What is wrong, without the C++ around it."""
    text = "\n".join(line for line in text.splitlines() if _NO_GPU not in line)
    for pattern in _REASONS:
        if match := pattern.search(text):
            text = match[1]
            break
    text = " ".join(text.split()).rstrip(".?")
    return "this operator is not supported" if text in ("", "false") else text
