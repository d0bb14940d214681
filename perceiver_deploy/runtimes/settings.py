"""How a runtime runs a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from perceiver_deploy.errors import UsageError

Hint = Literal["f32", "bf16", "f16"]
_TAKEN_BY = {"hint": "openvino", "memory_arena": "onnxruntime"}
"""Settings that only one runtime takes. `keep_compiled` is not among them: the others have nothing to keep."""


@dataclass(frozen=True)
class RuntimeSettings:
    """How many threads, in which precision, and what is kept.

    Attributes:
        threads: number of threads; None leaves it to the runtime.
        hint: the precision that OpenVINO may compute in where the graph says float32. Less than "f32" changes the
            numbers.
        memory_arena: let onnxruntime keep the memory of a run for the next one. Without it a session holds half of
            it between runs, and runs take up to 1.1 times as long.
        keep_compiled: keep models that OpenVINO compiled in the user's cache, so that they open faster the next time.

    Raises:
        UsageError: a value that cannot be used.
    """

    threads: int | None = None
    hint: Hint = "f32"
    memory_arena: bool = True
    keep_compiled: bool = True

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}; expected at least 1.")
        if self.hint not in get_args(Hint):
            raise UsageError(f"hint is {self.hint!r}; expected {', '.join(get_args(Hint))}.")

    def require_taken_by(self, runtime: str) -> None:
        """Raise a `UsageError` where the runtime would ignore a setting that was given."""
        for name, only in _TAKEN_BY.items():
            value = getattr(self, name)
            if runtime != only and value != getattr(DEFAULTS, name):
                raise UsageError(
                    f"{name} is {value!r}, and {runtime} does not take it. Name the runtime {only}, or leave it out."
                )


DEFAULTS = RuntimeSettings()
