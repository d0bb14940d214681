"""How a runtime runs a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from perceiver_deploy.errors import UsageError

Hint = Literal["f32", "bf16", "f16"]


@dataclass(frozen=True)
class RuntimeSettings:
    """Threads, the precision hint, and whether compiled models are kept.

    Attributes:
        threads: number of threads; None leaves it to the runtime.
        hint: the precision that OpenVINO may compute in where the graph says float32. Less than "f32" changes the
            numbers; no other runtime takes it.
        keep_compiled: keep models that OpenVINO compiled in the user's cache, so that they open faster the next time.

    Raises:
        UsageError: a value that cannot be used.
    """

    threads: int | None = None
    hint: Hint = "f32"
    keep_compiled: bool = True

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}; expected at least 1.")
        if self.hint not in get_args(Hint):
            raise UsageError(f"hint is {self.hint!r}; expected {', '.join(get_args(Hint))}.")

    def refuse_hint(self, runtime: str) -> None:
        """Raise a `UsageError` where a hint is given to a runtime that would ignore it."""
        if self.hint != "f32":
            raise UsageError(
                f"hint is {self.hint!r}, and {runtime} computes in the precision that the graph says. Only openvino "
                "takes a hint: name that runtime, or leave the hint out."
            )


DEFAULTS = RuntimeSettings()
