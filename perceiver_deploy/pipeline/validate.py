"""Validate: numeric parity of every variant in every runtime that can run here."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from perceiver_deploy.bundle import Bundle
from perceiver_deploy.errors import BundleError, MissingError
from perceiver_deploy.evaluate.environment import describe_environment
from perceiver_deploy.evaluate.grid import Case, shape_grid
from perceiver_deploy.evaluate.parity import Candidate, Verdict, candidates_of, judge
from perceiver_deploy.evaluate.samples import Sample, load_sample
from perceiver_deploy.pipeline.reports import write_report
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.loading import load, runtimes_here
from perceiver_deploy.runtimes.settings import RuntimeSettings

REFERENCE_SECONDS = 120.0


@dataclass(frozen=True)
class ValidationResult:
    """Verdicts on every (runtime, variant, case, output), and the cases left out for time."""

    bundle: str
    reference: Literal["grid", "golden samples"]
    verdicts: tuple[Verdict, ...]
    capped: tuple[str, ...]
    report: str

    @property
    def passed(self) -> bool:
        """All of them, and there are some."""
        return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, `passed` included."""
        verdicts = [verdict.to_json() for verdict in self.verdicts]
        return {**self.__dict__, "verdicts": verdicts, "passed": self.passed}


def validate_bundle(
    bundle: str | Path, *, golden: bool = False, seconds: float = REFERENCE_SECONDS, threads: int | None = None
) -> ValidationResult:
    """Compare with eager float64 over the grid, or replay the golden samples where torch or the weights are missing.

    Args:
        bundle: the bundle.
        golden: replay the golden samples even where the grid could be run.
        seconds: time the reference may take; cases beyond it are left out and named.
        threads: for the runtimes that are judged.

    Raises:
        BundleError: no such bundle, or a file of it was changed.
        MissingError: no runtime is installed that any variant is for.
    """
    opened = Bundle.open(bundle)
    capped: list[Case] = []
    verdicts: list[Verdict] = []
    with contextlib.ExitStack() as stack:
        candidates: list[Candidate] = []
        for candidate in _candidates(opened, threads):
            stack.enter_context(candidate.session)
            candidates.append(candidate)
        eager = not golden and "model.safetensors" in opened.manifest.files and importlib.util.find_spec("torch")
        samples = _grid_samples(opened, seconds, capped) if eager else golden_samples(opened)
        for sample in samples:
            log.info("Validating case %s", sample.name)
            verdicts += judge(candidates, sample)
    left_out = tuple(str(case) for case in capped)
    document = {
        "environment": describe_environment(),
        "capped": left_out,
        "verdicts": [verdict.to_json() for verdict in verdicts],
    }
    report = write_report(opened.report_path("parity.json"), json.dumps(document, indent=2) + "\n")
    reference: Literal["grid", "golden samples"] = "grid" if eager else "golden samples"
    return ValidationResult(str(bundle), reference, tuple(verdicts), left_out, str(report))


def _candidates(bundle: Bundle, threads: int | None) -> Iterator[Candidate]:
    found, settings = False, RuntimeSettings(threads=threads, keep_compiled=False)
    for name, variant in bundle.manifest.variants.items():
        for runtime in runtimes_here(bundle, name):
            found = True
            session = load(bundle, runtime=runtime, variant=name, settings=settings.as_taken_by(runtime))
            yield from candidates_of(session, name, variant.precision)
    if not found:
        raise MissingError(
            "No runtime that this bundle is for is installed. Install them with: pip install 'perceiver-deploy[cpu]'"
        )


def golden_samples(bundle: Bundle) -> Iterator[Sample]:
    """The samples that a bundle was exported with, or a `BundleError` where it has none."""
    names = bundle.samples()
    if not names:
        raise BundleError(
            f"{bundle.path} has no golden samples to replay: it was exported with --no-validate. Export it without."
        )
    for name in names:
        yield load_sample(bundle.file(name))


def _grid_samples(bundle: Bundle, seconds: float, capped: list[Case]) -> Iterator[Sample]:
    from perceiver_deploy.evaluate.reference import Reference
    from perceiver_deploy.runtimes.torch import load_source_model

    manifest = bundle.manifest
    reference = Reference(load_source_model(bundle), manifest.signature)
    return reference.samples(shape_grid(manifest.signature), manifest.preprocessing, seconds, capped)
