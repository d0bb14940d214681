"""How a runtime runs a graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from perceiver_deploy.errors import UsageError
from perceiver_deploy.runtimes.catalogue import EAGER, RUNTIMES, SettingName

Hint = Literal["f32", "bf16", "f16"]


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
        ignored = {name: getattr(DEFAULTS, name) for name in get_args(SettingName) if name not in _taken_by(runtime)}
        return replace(self, **ignored)

    def require_taken_by(self, runtime: str) -> None:
        """Raise a `UsageError` where the runtime would ignore a setting that was given."""
        for name in get_args(SettingName):
            value = getattr(self, name)
            if name not in _taken_by(runtime) and value != getattr(DEFAULTS, name):
                takers = [known for known, record in RUNTIMES.items() if name in record.settings]
                raise UsageError(
                    f"{name} is {value!r}, and {runtime} does not take it. Name the runtime {' or '.join(takers)}, or "
                    "leave it out."
                )


def _taken_by(runtime: str) -> frozenset[SettingName]:
    """`keep_compiled` is not among them: runtimes that do not take it have nothing to keep."""
    return RUNTIMES[runtime].settings


DEFAULTS = RuntimeSettings()


def way_text(runtime: str, variant: str, settings: RuntimeSettings = DEFAULTS) -> str:
    """A way to run a bundle, in words: `openvino int8, bf16 hint, 2 threads`."""
    words = [f"eager {variant}" if runtime == EAGER else f"{runtime} {variant}"]
    if settings.hint != "f32":
        words.append(f"{settings.hint} hint")
    if settings.static_shapes:
        words.append("static shapes")
    if settings.threads is not None:
        words.append(f"{settings.threads} thread{'s' * (settings.threads > 1)}")
    return ", ".join(words)
