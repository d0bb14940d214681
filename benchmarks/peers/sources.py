"""What runs in the workers: transformers' eager model, an exported graph in a runtime, matrix products alone.

Nothing is imported before a source is opened, so that a worker holds what it runs and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import Signature
from perceiver_deploy.evaluate.speed.workers import Runnable
from perceiver_deploy.runtimes.settings import RuntimeSettings

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
            from perceiver_deploy.runtimes.cpu.onnxruntime import OnnxRuntimeSession as Session
        else:
            from perceiver_deploy.runtimes.cpu.openvino import OpenVinoSession as Session
        settings = RuntimeSettings(threads=threads, keep_compiled=False)
        return Session(self.file, signature.stage, signature.axes, settings)


@dataclass(frozen=True)
class StaticSource:
    """A variant of our bundle in OpenVINO with static shapes, with one thread whatever the others have."""

    bundle: Path
    variant: str

    def __str__(self) -> str:
        return f"openvino {self.variant}, static shapes, 1 thread"

    def open(self, threads: int | None) -> Runnable:
        """A session."""
        from perceiver_deploy.runtimes.opening import load

        settings = RuntimeSettings(threads=1, static_shapes=True, keep_compiled=False)
        return load(self.bundle, "openvino", self.variant, settings=settings)


@dataclass(frozen=True)
class Bf16Source:
    """A file in OpenVINO with its default precision on CPUs that compute in bf16."""

    file: Path

    def __str__(self) -> str:
        return "openvino bf16"

    def open(self, threads: int | None) -> Runnable:
        """A compiled model."""
        return Bf16Session(self.file, threads)


class Bf16Session:
    """OpenVINO as its users run it, but for the number of threads."""

    def __init__(self, file: Path, threads: int | None) -> None:
        import openvino

        options = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        self._model = openvino.Core().compile_model(str(file), "CPU", options)

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name."""
        results = self._model(inputs, share_inputs=True)
        return {output.any_name: np.array(results[output]) for output in self._model.outputs}

    def close(self) -> None:
        """Drop the model."""
        del self._model


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
    """A graph's matrix products in torch, each distinct shape timed alone; in int8 those of a batch one by one."""

    gemms: tuple[Gemm, ...]
    dtype: Literal["float32", "int8"] = "float32"

    def __str__(self) -> str:
        return f"matrix products alone in {self.dtype}"

    def open(self, threads: int | None) -> Runnable:
        """Something whose output `seconds` is the time of all products."""
        return GemmSession(self.gemms, self.dtype, threads)


class GemmSession:
    """Times matrix products when it is run."""

    def __init__(self, gemms: Iterable[Gemm], dtype: Literal["float32", "int8"], threads: int | None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self._torch, self._gemms, self._dtype = torch, list(gemms), dtype

    def run(self, inputs: Arrays) -> Arrays:
        """`seconds`: the sum over shapes of count times the time of one product. Inputs are not looked at."""
        return {"seconds": np.array(sum(gemm.count * self._time(gemm) for gemm in self._gemms))}

    def _time(self, gemm: Gemm) -> float:
        """Mean of as many as fill a moment, on memory that was touched before."""
        multiply = self._multiply_int8(gemm) if self._dtype == "int8" else self._multiply_float32(gemm)
        runs, spent = 0, 0.0
        while spent < _LEAST_SECONDS:
            started = time.perf_counter()
            multiply()
            spent += time.perf_counter() - started
            runs += 1
        return spent / runs

    def _multiply_float32(self, gemm: Gemm) -> Callable[[], object]:
        left, right, product = (
            self._torch.ones(gemm.batch, rows, columns)
            for rows, columns in ((gemm.m, gemm.k), (gemm.k, gemm.n), (gemm.m, gemm.n))
        )
        return lambda: self._torch.matmul(left, right, out=product)

    def _multiply_int8(self, gemm: Gemm) -> Callable[[], object]:
        left, right = (
            self._torch.ones(gemm.batch, rows, columns, dtype=self._torch.int8)
            for rows, columns in ((gemm.m, gemm.k), (gemm.k, gemm.n))
        )
        product = self._torch.zeros(gemm.m, gemm.n, dtype=self._torch.int32)
        pairs = list(zip(left, right, strict=True))

        def multiply() -> None:
            for one, other in pairs:
                self._torch._int_mm(one, other, out=product)

        return multiply

    def close(self) -> None:
        """Nothing is held."""
