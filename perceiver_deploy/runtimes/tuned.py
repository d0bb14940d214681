"""What `tune` measured on this machine, kept in the user's cache for `load`."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from perceiver_deploy._version import __version__
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Manifest, RuntimeName
from perceiver_deploy.cache import Store
from perceiver_deploy.errors import BundleError
from perceiver_deploy.machine import processor_kind, usable_cores
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.catalogue import installed_packages
from perceiver_deploy.runtimes.settings import Hint, RuntimeSettings, way_text
from perceiver_deploy.strict import Strict, first_problem

_TUNINGS = Store("tunings", ".json")


class Environment(Strict):
    """What a measurement holds for."""

    processor: str
    cores: int
    packages: dict[str, str]

    @classmethod
    def here(cls) -> Environment:
        """That of this process."""
        packages = {**installed_packages("cpu"), "perceiver-deploy": __version__}
        return cls(processor=processor_kind(), cores=usable_cores(), packages=packages)

    def difference(self, here: Environment) -> str | None:
        """The first thing that differs, in words, or None."""
        if self.processor != here.processor:
            return f"the processor was {self.processor} and is {here.processor}"
        if self.cores != here.cores:
            return f"there were {self.cores} cores to use and are {here.cores}"
        for name in sorted({*self.packages, *here.packages}):
            was, found = self.packages.get(name, "not installed"), here.packages.get(name, "not installed")
            if was != found:
                return f"{name} was {was} and is {found}"
        return None


State = Literal["ranked", "slow", "refused", "not tried"]


class Finding(Strict):
    """What became of one way of running a bundle.

    `first_seconds` is the least of the times when it was tried alone, perhaps on a busier machine than others;
    `seconds` the median time when it was ranked, and `times_fastest` the 95 % interval of its time over that of the
    fastest; `reason` why it was refused.
    """

    runtime: RuntimeName
    variant: str
    hint: Hint
    static_shapes: bool
    threads: int = Field(ge=1)
    state: State
    first_seconds: float | None = None
    seconds: float | None = None
    times_fastest: tuple[float, float] | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return way_text(self.runtime, self.variant, self.settings)

    @property
    def of_use(self) -> bool:
        """Whether it kept the contract."""
        return self.state in ("ranked", "slow")

    @property
    def settings(self) -> RuntimeSettings:
        """What a session is opened with."""
        return RuntimeSettings(threads=self.threads, hint=self.hint, static_shapes=self.static_shapes)


class Question(Strict):
    """What was asked for: sizes of all axes, whether static shapes count, the contract and what it was measured on."""

    sizes: dict[str, int]
    static_shapes: bool = False
    max_drop: str | None = None
    data: str | None = None
    data_sha256: str | None = None

    def command(self, bundle: Bundle) -> str:
        """The command that asks for it."""
        words = ["perceiver-deploy", "tune", str(bundle.path)]
        for name, size in self.sizes.items():
            if name == "batch":
                words += ["--batch", str(size)] if size != 1 else []
            elif size != bundle.manifest.axes[name].opt:
                words += ["--size", f"{name}={size}"]
        words += ["--static-shapes"] if self.static_shapes else []
        for option, value in (("--max-drop", self.max_drop), ("--data", self.data)):
            words += [option, value] if value is not None else []
        return shlex.join(words)


class Tuning(Strict):
    """All of a bundle's tuning: findings with the choice first, and where and for which question they were measured.

    `remark` says when the machine was too noisy to rank.
    """

    format: Literal[2] = 2
    bundle: str
    environment: Environment
    question: Question
    findings: tuple[Finding, ...] = Field(min_length=1)
    remark: str | None = None


def tuning_path(manifest: Manifest) -> Path:
    """Where the tuning of bundles with exactly this manifest is kept."""
    return _TUNINGS.path(_key(manifest))


def write_tuning(manifest: Manifest, tuning: Tuning) -> Path:
    """Keep a tuning.

    Raises:
        OSError: the cache cannot be written.
    """
    return _TUNINGS.write(_key(manifest), (tuning.model_dump_json(indent=2) + "\n").encode())


def read_tuning(manifest: Manifest) -> Tuning | None:
    """What is kept, or None.

    Raises:
        BundleError: it cannot be read.
    """
    path = tuning_path(manifest)
    try:
        content = _TUNINGS.read(_key(manifest))
        return None if content is None else Tuning.model_validate_json(content)
    except OSError as error:
        raise BundleError(f"The tuning {path} cannot be read: {error.strerror or error}.") from error
    except ValidationError as error:
        raise BundleError(f"The tuning {path} is damaged: {first_problem(error, 'the file')}.") from None


def _key(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.to_json().encode()).hexdigest()


def tuned_choice(bundle: Bundle, variant: str | None, threads: int | None) -> Finding | None:
    """The best that was measured here, of one variant or number of threads where these are given.

    None where the bundle was not tuned, or nothing that was measured fits. A tuning that does not hold any more is
    ignored with a warning that says why.
    """
    try:
        tuning = read_tuning(bundle.manifest)
    except BundleError as error:
        log.warning("%s It is ignored. Tune again with: perceiver-deploy tune %s", error, bundle.path)
        return None
    if tuning is None:
        return None
    if difference := tuning.environment.difference(Environment.here()):
        again = tuning.question.command(bundle)
        log.warning("The tuning of %s is ignored: %s. Tune again with: %s", bundle.path, difference, again)
        return None
    fitting = (
        found
        for found in tuning.findings
        if found.of_use and variant in (None, found.variant) and threads in (None, found.threads)
    )
    return next(fitting, None)
