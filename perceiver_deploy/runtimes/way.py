"""One way to run a bundle: which variant, in which runtime, with which settings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from perceiver_deploy.runtimes.catalogue import EAGER
from perceiver_deploy.runtimes.opening import load
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.settings import RuntimeSettings, way_text


@dataclass(frozen=True)
class Way:
    """What is tried, timed, ranked and recommended. It travels to the process that runs it.

    A model compiled for a measurement is not kept: measuring leaves nothing behind in the user's cache.
    """

    bundle: Path
    runtime: str
    variant: str
    settings: RuntimeSettings = field(default_factory=lambda: RuntimeSettings(keep_compiled=False))

    def __str__(self) -> str:
        return way_text(self.runtime, self.variant, self.settings)

    @property
    def is_eager(self) -> bool:
        """Whether it is the reference."""
        return self.runtime == EAGER

    def open(self, threads: int | None) -> Session:
        """A session, with these threads."""
        settings = replace(self.settings, threads=threads).as_taken_by(self.runtime)
        return load(self.bundle, runtime=self.runtime, variant=self.variant, settings=settings)
