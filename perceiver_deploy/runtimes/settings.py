"""How a runtime runs a graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from perceiver_deploy.errors import UsageError

Hint = Literal["f32", "bf16", "f16"]
_NATIVE = ("tensorrt", "tensorrt-rtx")
_ON_GPU = ("onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-tensorrt-rtx", *_NATIVE)
_TAKEN_BY = {
    "threads": ("torch", "onnxruntime", "openvino", "onnxruntime-cuda", "onnxruntime-tensorrt"),
    "hint": ("openvino",),
    "static_shapes": ("openvino",),
    "memory_arena": ("onnxruntime",),
    "gpu": _ON_GPU,
    "cuda_graph": _NATIVE,
}
"""Runtimes that take a setting. `keep_compiled` is not here: those that do not take it have nothing to keep."""


@dataclass(frozen=True)
class RuntimeSettings:
    """How many threads, in which precision, and what is kept.

    Attributes:
        threads: number of threads; None leaves it to the runtime.
        hint: the precision that OpenVINO may compute in where the graph says float32. Less than "f32" changes the
            numbers.
        static_shapes: let OpenVINO compile anew for each combination of input sizes, when it first comes (the usual one
            when the session opens), and keep those used last. Small models run in half to four fifths of the time;
            a size that is new takes as long as opening, and each that is kept holds the weights again.
        memory_arena: let onnxruntime keep the memory of a run for the next one. Without it a session holds half of
            it between runs, and runs take up to 1.1 times as long.
        keep_compiled: keep models that OpenVINO compiled in the user's cache, so that they open faster the next time.
        gpu: number of the GPU, for runtimes on one.
        cuda_graph: let TensorRT record the work of each shape when it first runs and launch it as a whole from then on,
            which saves the processor's time where kernels are short.

    Raises:
        UsageError: a value that cannot be used.
    """

    threads: int | None = None
    hint: Hint = "f32"
    static_shapes: bool = False
    memory_arena: bool = True
    keep_compiled: bool = True
    gpu: int = 0
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}; expected at least 1.")
        if self.gpu < 0:
            raise UsageError(f"gpu is {self.gpu}; GPUs are counted from 0.")
        if self.hint not in get_args(Hint):
            raise UsageError(f"hint is {self.hint!r}; expected {', '.join(get_args(Hint))}.")

    def as_taken_by(self, runtime: str) -> RuntimeSettings:
        """With those that the runtime does not take left out."""
        ignored = {name: getattr(DEFAULTS, name) for name, takers in _TAKEN_BY.items() if runtime not in takers}
        return replace(self, **ignored)

    def require_taken_by(self, runtime: str) -> None:
        """Raise a `UsageError` where the runtime would ignore a setting that was given."""
        for name, takers in _TAKEN_BY.items():
            value = getattr(self, name)
            if runtime not in takers and value != getattr(DEFAULTS, name):
                raise UsageError(
                    f"{name} is {value!r}, and {runtime} does not take it. Name the runtime {' or '.join(takers)}, or "
                    "leave it out."
                )


DEFAULTS = RuntimeSettings()
