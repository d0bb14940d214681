"""What runs in the workers: transformers' eager model, an exported graph in a runtime, matrix products alone.

Nothing is imported before a source is opened, so that a worker holds what it runs and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.evaluate.workers import Runnable
from perceiver_deploy.manifest import Signature

_LEAST_SECONDS = 0.05


@dataclass(frozen=True)
class EagerSource:
    """Transformers' own model."""

    class_name: str
    checkpoint: Path

    def __str__(self) -> str:
        return "huggingface-eager"

    def open(self, threads: int | None) -> Runnable:
        """The model, loaded."""
        from peers.huggingface import HuggingFaceSession

        return HuggingFaceSession(self.class_name, self.checkpoint, threads)


@dataclass(frozen=True)
class GraphSource:
    """An exported file in a runtime. `signature` is the file that says what the graph takes and gives."""

    exporter: str
    runtime: str
    file: Path
    signature: Path

    def __str__(self) -> str:
        return f"{self.exporter} in {self.runtime}"

    def open(self, threads: int | None) -> Runnable:
        """A session with the runtime's settings of perceiver-deploy, the same for every exporter."""
        signature = Signature.model_validate_json(self.signature.read_text(encoding="utf-8"))
        if self.runtime == "onnxruntime":
            from perceiver_deploy.runtimes.onnxruntime import OnnxRuntimeSession as Session
        else:
            from perceiver_deploy.runtimes.openvino import OpenVinoSession as Session
        return Session(self.file, signature.stage, signature.axes, threads)


@dataclass(frozen=True)
class Gemm:
    """`count` products of [batch, m, k] and [batch, k, n]."""

    batch: int
    m: int
    k: int
    n: int
    count: int

    @property
    def flops(self) -> int:
        """Of all of them, two for a multiply-add."""
        return 2 * self.batch * self.m * self.k * self.n * self.count


@dataclass(frozen=True)
class GemmSource:
    """A graph's matrix products in torch, each distinct shape timed alone."""

    gemms: tuple[Gemm, ...]

    def __str__(self) -> str:
        return "matrix products alone"

    def open(self, threads: int | None) -> Runnable:
        """Something whose output `seconds` is the time of all products."""
        return GemmSession(self.gemms, threads)


class GemmSession:
    """Times matrix products when it is run."""

    def __init__(self, gemms: Iterable[Gemm], threads: int | None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self._torch, self._gemms = torch, list(gemms)

    def run(self, inputs: Arrays) -> Arrays:
        """`seconds`: the sum over shapes of count times the time of one product. Inputs are not looked at."""
        return {"seconds": np.array(sum(gemm.count * self._time(gemm) for gemm in self._gemms))}

    def _time(self, gemm: Gemm) -> float:
        """Mean of as many as fill a moment, on memory that was touched before."""
        left, right, product = (
            self._torch.ones(gemm.batch, rows, columns)
            for rows, columns in ((gemm.m, gemm.k), (gemm.k, gemm.n), (gemm.m, gemm.n))
        )
        runs, spent = 0, 0.0
        while spent < _LEAST_SECONDS:
            started = time.perf_counter()
            self._torch.matmul(left, right, out=product)
            spent += time.perf_counter() - started
            runs += 1
        return spent / runs

    def close(self) -> None:
        """Nothing is held."""
