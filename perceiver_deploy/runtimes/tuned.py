"""What `tune` measured on this machine, kept in the user's cache for `load`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

import perceiver_deploy
from perceiver_deploy.bundle import Bundle
from perceiver_deploy.cache import cache_directory, write_whole
from perceiver_deploy.machine import installed_version, processor_name, usable_cores
from perceiver_deploy.manifest import Manifest, RuntimeName
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.settings import Hint, RuntimeSettings
from perceiver_deploy.strict import Strict

_RUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino")


class Environment(Strict):
    """What a measurement holds for."""

    processor: str
    cores: int
    packages: dict[str, str]

    @classmethod
    def here(cls) -> Environment:
        """That of this process."""
        packages = {name: found for name in _RUNTIME_PACKAGES if (found := installed_version(name)) is not None}
        packages["perceiver-deploy"] = perceiver_deploy.__version__
        return cls(processor=processor_name(), cores=usable_cores(), packages=packages)

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


class TunedChoice(Strict):
    """One way of running a bundle that kept the contract."""

    runtime: RuntimeName
    variant: str
    hint: Hint
    threads: int = Field(ge=1)

    @property
    def settings(self) -> RuntimeSettings:
        """What a session is opened with."""
        return RuntimeSettings(threads=self.threads, hint=self.hint)


class Tuning(Strict):
    """All of a bundle's tuning: choices, best first, where and for which sizes they were measured."""

    format: Literal[1] = 1
    bundle: str
    environment: Environment
    sizes: dict[str, int]
    choices: tuple[TunedChoice, ...] = Field(min_length=1)


def tuning_path(manifest: Manifest) -> Path:
    """Where the tuning of bundles with exactly this manifest is kept."""
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    return cache_directory() / "tunings" / f"{digest}.json"


def write_tuning(manifest: Manifest, tuning: Tuning) -> Path:
    """Keep a tuning.

    Raises:
        OSError: the cache cannot be written.
    """
    path = tuning_path(manifest)
    write_whole(path, (tuning.model_dump_json(indent=2) + "\n").encode())
    return path


def tuned_choice(bundle: Bundle, variant: str | None, threads: int | None) -> TunedChoice | None:
    """The best choice that was measured here, of one variant or number of threads where these are given.

    None where the bundle was not tuned, or nothing that was measured fits. A tuning that does not hold any more is
    ignored with a warning that says why.
    """
    path = tuning_path(bundle.manifest)
    try:
        tuning = Tuning.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("The tuning %s cannot be read and is ignored: %s. %s", path, error, _again(bundle))
        return None
    if difference := tuning.environment.difference(Environment.here()):
        log.warning("The tuning of %s is ignored: %s. %s", bundle.path, difference, _again(bundle))
        return None
    fitting = (
        choice for choice in tuning.choices if variant in (None, choice.variant) and threads in (None, choice.threads)
    )
    return next(fitting, None)


def _again(bundle: Bundle) -> str:
    return f"Tune again with: perceiver-deploy tune {bundle.path}"
