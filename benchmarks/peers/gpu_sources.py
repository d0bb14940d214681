"""What runs in the workers of gpu.py: eager and compiled PyTorch on CUDA, runtimes on a GPU, and their device time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.evaluate.speed.workers import Runnable
from perceiver_deploy.runtimes.eager import load_source_model
from perceiver_deploy.runtimes.opening import load
from perceiver_deploy.runtimes.settings import RuntimeSettings

_PROFILED_RUNS = 20
_WARM_UP = 5


class CudaModel:
    """Our PyTorch model on the GPU: host arrays in and out, as a session's. TF32 is off, as in our engines."""

    def __init__(self, bundle: Path, dtype: str, *, compiled: bool) -> None:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        self._torch, self._dtype = torch, getattr(torch, dtype)
        model = load_source_model(Bundle.open(bundle)).eval().to("cuda", self._dtype)
        self._model: Any = torch.compile(model) if compiled else model

    def run(self, inputs: Arrays, /) -> Arrays:
        """Outputs for inputs; floating-point ones in the model's dtype on the way."""
        tensors = {
            name: self._torch.from_numpy(array).pin_memory().cuda(non_blocking=True) for name, array in inputs.items()
        }
        tensors = {name: t.to(self._dtype) if t.is_floating_point() else t for name, t in tensors.items()}
        with self._torch.inference_mode():
            outputs = self._model(**tensors)
        return {name: np.asarray(output.float().cpu().numpy()) for name, output in outputs.items()}

    def close(self) -> None:
        """Free the model."""
        del self._model


@dataclass(frozen=True)
class TorchSource:
    """PyTorch, eager or compiled."""

    bundle: Path
    dtype: Literal["float32", "float16"]
    compiled: bool

    def __str__(self) -> str:
        return f"{'torch.compile' if self.compiled else 'eager'} {'fp32' if self.dtype == 'float32' else 'fp16'}"

    def open(self, threads: int | None) -> Runnable:
        """The model, on the GPU."""
        return CudaModel(self.bundle, self.dtype, compiled=self.compiled)


@dataclass(frozen=True)
class SessionSource:
    """A runtime on the GPU."""

    bundle: Path
    runtime: str
    variant: str
    cuda_graph: bool = False

    def __str__(self) -> str:
        return f"{self.runtime} {self.variant}{' with CUDA graphs' if self.cuda_graph else ''}"

    def open(self, threads: int | None) -> Runnable:
        """A session."""
        settings = RuntimeSettings(cuda_graph=self.cuda_graph)
        return load(self.bundle, runtime=self.runtime, variant=self.variant, settings=settings)


@dataclass(frozen=True)
class DeviceTimeSource:
    """Another source, whose `run` gives the GPU's seconds of a run instead of outputs: `kernels` and `copies`.

    They are the sums that CUPTI reports through PyTorch's profiler, which sees the work of every library of a process.
    """

    source: TorchSource | SessionSource

    def __str__(self) -> str:
        return f"device time of {self.source}"

    def open(self, threads: int | None) -> Runnable:
        """The source, profiled."""
        return _Profiled(self.source.open(threads))


class _Profiled:
    def __init__(self, inner: Runnable) -> None:
        self._inner = inner

    def run(self, inputs: Arrays, /) -> Arrays:
        from torch.profiler import ProfilerActivity, profile

        for _ in range(_WARM_UP):
            self._inner.run(inputs)
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            for _ in range(_PROFILED_RUNS):
                self._inner.run(inputs)
        seconds = {"kernels": 0.0, "copies": 0.0}
        for event in profiled.key_averages():
            kind = "copies" if event.key.startswith(("Memcpy", "Memset")) else "kernels"
            seconds[kind] += event.self_device_time_total / 1e6
        return {kind: np.array(total / _PROFILED_RUNS) for kind, total in seconds.items()}

    def close(self) -> None:
        self._inner.close()
