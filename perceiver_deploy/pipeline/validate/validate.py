"""Validate: numeric parity of every variant in every runtime that can run here."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.samples import Sample, load_sample
from perceiver_deploy.errors import MissingError, PerceiverDeployError, UsageError
from perceiver_deploy.evaluate.parity.grid import Case
from perceiver_deploy.evaluate.parity.verdicts import TOLERANCES, Candidate, Verdict, candidates_of, judge
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.pipeline.reports import write_report
from perceiver_deploy.pipeline.validate.samples import eager_samples, golden_name, golden_samples, reduce_sample
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.conformance import Expected, Route, expected_outputs
from perceiver_deploy.runtimes.opening import load, runtimes_here
from perceiver_deploy.runtimes.settings import RuntimeSettings

if TYPE_CHECKING:
    from perceiver_deploy.pipeline.validate.bisection import Bisection

REFERENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Failure:
    """The smallest sample that fails, as a file, and the command that judges it again."""

    sample: str
    command: str


@dataclass(frozen=True)
class ValidationResult:
    """Verdicts on every (runtime, variant, case, output), and the cases left out for time.

    `bisections`: of each variant that failed, or of all if that was asked for, where the error arises.
    """

    bundle: str
    reference: Literal["grid", "golden samples", "given sample"]
    verdicts: tuple[Verdict, ...]
    capped: tuple[str, ...]
    failure: Failure | None
    bisections: tuple[Bisection, ...]
    report: str

    @property
    def passed(self) -> bool:
        """All of them, and there are some."""
        return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts)

    @property
    def tolerances(self) -> dict[str, str]:
        """What each precision of the bundle that was judged is held to, and why."""
        return {name: TOLERANCES[name] for name in dict.fromkeys(verdict.precision for verdict in self.verdicts)}

    def to_json(self) -> dict[str, Any]:
        """A plain dict, `passed` and `tolerances` included."""
        verdicts = [verdict.to_json() for verdict in self.verdicts]
        failure = None if self.failure is None else asdict(self.failure)
        stated = {"tolerances": self.tolerances, "passed": self.passed}
        bisections = [bisection.to_json() for bisection in self.bisections]
        return {**self.__dict__, "verdicts": verdicts, "failure": failure, "bisections": bisections, **stated}


def validate_bundle(
    bundle: str | Path,
    *,
    golden: bool = False,
    data: str | Path | None = None,
    sample: str | Path | None = None,
    add_exact: bool = False,
    bisect: bool = False,
    seconds: float = REFERENCE_SECONDS,
    threads: int | None = None,
) -> ValidationResult:
    """Compare with eager float64 over the grid, or replay the golden samples where torch or the weights are missing.

    The smallest sample that fails is kept, cut to one row if that fails too.

    Args:
        bundle: the bundle.
        golden: replay the golden samples alone even where the grid could be run.
        data: real inputs to judge beside the grid: a data set's name (8 of its test rows) or a .npz file.
        sample: judge this sample alone, a file that an earlier failure left.
        add_exact: first add what each variant's graph gives exactly for the golden samples, where the bundle lacks it.
        bisect: say of every variant, not only of those that fail, what its modules lose.
        seconds: time the reference may take for the grid; cases beyond it are left out and named.
        threads: for the runtimes that are judged.

    Raises:
        BundleError: no such bundle, or a file of it was changed; `sample` is none.
        MissingError: no runtime is installed that any variant is for.
        UsageError: `data` where there is no eager model to say what is right.
    """
    if add_exact:
        from perceiver_deploy.pipeline.convert.exact_outputs import add_exact_outputs  # needs the extra export

        if not add_exact_outputs(bundle):
            log.info("Every variant of %s has its exact outputs already", bundle)
    opened = Bundle.open(bundle)
    capped: list[Case] = []
    verdicts: list[Verdict] = []
    first: Sample | None = None
    smallest: Sample | None = None
    reference: Literal["grid", "golden samples", "given sample"] = "golden samples"
    samples: Iterator[Sample | Case]
    if sample is not None:
        reference, samples = "given sample", iter([load_sample(Path(sample))])
    elif not golden and _has_eager(opened):
        reference, samples = "grid", eager_samples(opened, data, seconds)
    else:
        samples = golden_samples(opened)
    if data is not None and reference != "grid":
        raise UsageError(f"--data {data} needs eager to say what is right: torch, a bundle with weights, no --golden.")
    if bisect and not _has_eager(opened):
        raise UsageError("--bisect compares with eager, which needs the extra export and a bundle with weights.")
    bisected = dict[str, str]()
    with contextlib.ExitStack() as stack:
        candidates = list[Candidate]()
        for candidate in _candidates(opened, threads):
            stack.enter_context(candidate.session)
            candidates.append(candidate)
        for judged in samples:
            if isinstance(judged, Case):
                capped.append(judged)
                continue
            log.info("Validating case %s", judged.name)
            found = judge(candidates, judged)
            verdicts += found
            first = first or judged
            if not _passed(found) and (smallest is None or _bytes(judged) < _bytes(smallest)):
                smallest = judged
        if smallest is not None:
            stage = opened.manifest.stages["full"]
            failing = [one for one in candidates if not _passed(judge([one], smallest))]
            smallest = reduce_sample(smallest, stage, lambda reduced: not _passed(judge(failing, reduced)))
            bisected = {v.variant: v.runtime for v in reversed(judge(candidates, smallest)) if not v.passed}
        if bisect:
            bisected = {one.variant: one.session.runtime for one in reversed(candidates)} | bisected
    failure = None if smallest is None else _keep(opened, smallest)
    path = opened.report_path("parity.json")
    result = ValidationResult(
        bundle=str(bundle),
        reference=reference,
        verdicts=tuple(verdicts),
        capped=tuple(str(case) for case in capped),
        failure=failure,
        bisections=tuple(_bisections(opened, bisected, smallest or first)),
        report=str(path),
    )
    document = {"environment": describe_environment(), **result.to_json()}
    write_report(path, json.dumps(document, indent=2) + "\n")
    return result


def _exact(bundle: Bundle, variant: str, route: Route) -> dict[str, Expected]:
    """What a variant of reduced precision gives exactly, by the names that its golden samples have here."""
    found = dict[str, Expected]()
    for sample in bundle.exact_outputs(variant):
        expected = expected_outputs(bundle, variant, route, sample)
        if expected is not None:
            found |= dict.fromkeys((expected.sample.name, golden_name(expected.sample)), expected)
    return found


def _has_eager(bundle: Bundle) -> bool:
    return "model.safetensors" in bundle.manifest.files and importlib.util.find_spec("torch") is not None


def _bisections(bundle: Bundle, runtimes: dict[str, str], sample: Sample | None) -> Iterator[Bisection]:
    """Of each variant in its runtime; none where eager is not here."""
    if not _has_eager(bundle) or sample is None:
        return
    from perceiver_deploy.pipeline.validate.bisection import bisect

    for variant, runtime in runtimes.items():
        log.info("Bisecting variant %s in %s", variant, runtime)
        try:
            yield bisect(bundle, variant, runtime, sample)
        except PerceiverDeployError as error:  # the verdicts stand without it
            log.warning("Variant %s could not be bisected: %s", variant, error)


def _passed(verdicts: list[Verdict]) -> bool:
    return all(verdict.passed for verdict in verdicts)


def _bytes(sample: Sample) -> int:
    return sum(array.nbytes for array in sample.inputs.values())


def _keep(bundle: Bundle, sample: Sample) -> Failure:
    content = io.BytesIO()
    sample.save(content)
    path = write_report(bundle.report_path("parity-failure.npz"), content.getvalue())
    command = shlex.join(["perceiver-deploy", "validate", str(bundle.path), "--input", str(path)])
    return Failure(str(path), command)


def _candidates(bundle: Bundle, threads: int | None) -> Iterator[Candidate]:
    found, settings = False, RuntimeSettings(threads=threads, keep_compiled=False)
    for name, variant in bundle.manifest.variants.items():
        for runtime in runtimes_here(bundle, name):
            found = True
            taken = settings.as_taken_by(runtime)
            session = load(bundle, runtime=runtime, variant=name, settings=taken, allow_nonconforming=True)
            yield from candidates_of(session, name, variant.precision, partial(_exact, bundle, name))
    if not found:
        raise MissingError(
            "No runtime that this bundle is for is installed. Install them with: pip install 'perceiver-deploy[cpu]'"
        )
