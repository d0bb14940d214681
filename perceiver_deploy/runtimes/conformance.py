"""Whether a runtime on this machine computes what a variant's graph says.

What a variant costs against eager is one question; whether a machine gives the variant's own numbers is another. A
bundle has golden inputs and, for each variant of reduced precision, what its graph gives for them exactly: the float
arithmetic that its Q/DQ pairs, casts and roundings state, computed without any fusion (`export.exact`). For fp32 that
is what eager gives. A runtime conforms if it is within a bound that rounding explains (`bounds.rounding_bound`).

`load` asks once for each graph, runtime, version, processor and precision hint; the answer is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from perceiver_deploy._version import __version__
from perceiver_deploy.arrays import Arrays, relative_l2
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import DATA_SUFFIX, Precision
from perceiver_deploy.bundle.samples import Sample, load_sample, read_groups
from perceiver_deploy.cache import Store
from perceiver_deploy.errors import BundleError, InputError, ParityError, UsageError
from perceiver_deploy.machine import processor_features, processor_kind
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.catalogue import RUNTIMES, installed_packages
from perceiver_deploy.runtimes.checks.bounds import BOUNDS, rounding_bound
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.settings import DEFAULTS, Hint, RuntimeSettings
from perceiver_deploy.strict import Strict

Route = Literal["full", "stages"]
"""By the stage `full`, or by `encoder` and `decoder`."""
VERDICTS = Store("conformance", ".json")
USUAL_SAMPLE = "samples/opt.npz"
"""The golden sample that `load` runs, where a bundle has it; the first one otherwise."""
_HINTED: dict[Hint, Precision] = {"bf16": "bf16", "f16": "fp16"}


@dataclass(frozen=True)
class Expected:
    """What a variant gives exactly for a golden sample by one route, and the bounds on relative L2, by output."""

    sample: Sample
    outputs: Arrays
    bounds: dict[str, float]


class Conformance(Strict):
    """The verdict on a variant in a runtime: the output that is farthest from exact, in terms of its bound.

    `distance` is None where an output is not finite. `problem` says why there is nothing to compare.
    """

    conforms: bool
    sample: str
    output: str
    distance: float | None
    bound: float
    problem: str | None = None

    def text(self) -> str:
        """`output 'logits' of the golden sample 'opt' is off by 1.1e+00 (relative L2), where ...`."""
        if self.problem is not None:
            return f"the golden sample {self.sample!r}: {self.problem}"
        off = "not finite" if self.distance is None else f"off by {self.distance:.1e} (relative L2)"
        return (
            f"output {self.output!r} of the golden sample {self.sample!r} is {off}, where rounding allows at most "
            f"{self.bound:.1e}"
        )


def expected_outputs(bundle: Bundle, variant: str, route: Route, sample: str) -> Expected | None:
    """What a variant is held to at a golden sample; None where the bundle does not say.

    Raises:
        BundleError: a file that was changed, or that does not hold what it should.
    """
    golden = load_sample(bundle.file(sample))
    precision = bundle.variant(variant).precision
    if precision == "fp32":
        errors = {name: relative_l2(golden.float32[name], wanted) for name, wanted in golden.float64.items()}
        bounds = {name: rounding_bound("fp32", error) for name, error in errors.items()}
        return Expected(golden, golden.float64, bounds)
    file = bundle.exact_outputs(variant).get(sample)
    if file is None:
        return None
    groups = read_groups(bundle.file(file))
    outputs = groups.get(route, {})
    bounds = {name: float(bound) for name, bound in groups.get(f"{route}_bound", {}).items()}
    if not outputs and groups:
        return None  # encoder and decoder that cannot be run as one
    if outputs.keys() != golden.float64.keys() or bounds.keys() != outputs.keys():
        raise BundleError(
            f"{bundle.path / file} does not hold what {variant} gives by {route}; expected outputs and bounds of "
            f"{', '.join(golden.float64)}. Add them anew with: perceiver-deploy validate {bundle.path} --add-exact"
        )
    return Expected(golden, outputs, bounds)


def compare_with_graph(expected: Expected, run: Callable[[Arrays], Arrays], allowance: float = 0.0) -> Conformance:
    """Run a golden sample and compare. `allowance` is what computing in a lower precision costs, on top of rounding."""
    sample = expected.sample.name
    try:
        outputs = run(expected.sample.inputs)
    except ParityError as error:  # another rank, size or dtype than the manifest says
        return Conformance(conforms=False, sample=sample, output="", distance=None, bound=0.0, problem=str(error))
    found = []
    for name, wanted in expected.outputs.items():
        distance = relative_l2(outputs[name], wanted) if outputs[name].shape == wanted.shape else math.inf
        bound = expected.bounds[name] + allowance
        found.append(
            Conformance(
                conforms=bool(distance <= bound),  # a NaN does not
                sample=sample,
                output=name,
                distance=distance if math.isfinite(distance) else None,
                bound=bound,
            )
        )
    return max(found, key=lambda one: math.inf if one.distance is None else one.distance / one.bound)


@dataclass(frozen=True)
class ConformanceCheck:
    """What `load` asks of a variant in a runtime. `allowed`: what does not conform is opened all the same."""

    bundle: Bundle
    variant: str
    allowed: bool = False

    def require(self, session: Session, route: Route, run: Callable[[Arrays], Arrays]) -> Conformance | None:
        """The verdict, kept or measured; None where nothing says what is right.

        Raises:
            ParityError: it does not conform.
        """
        verdict = self.ask(session, route, run)
        if verdict is None or verdict.conforms or self.allowed:
            return verdict
        raise ParityError(
            f"Variant {self.variant!r} in {RUNTIMES[session.runtime].version_text} does not give the numbers of its "
            f"own graph on this processor ({processor_kind()}): {verdict.text().rstrip('.')}. Use another runtime, or "
            "a variant that conforms here, such as fp32. allow_nonconforming opens it all the same."
        )

    def ask(self, session: Session, route: Route, run: Callable[[Arrays], Arrays]) -> Conformance | None:
        """The verdict, kept or measured; None, with a warning that says how to know it, where nothing says it."""
        sample = usual_sample(self.bundle)
        if sample is None:
            log.debug("Whether %s conforms is not known: %s has no golden samples", self.variant, self.bundle.path)
            return None
        key = verdict_key(self.bundle, self.variant, session.runtime, session.device, session.settings, route)
        if (kept := _read(key)) is not None:
            return kept
        expected = expected_outputs(self.bundle, self.variant, route, sample)
        if expected is None:
            log.warning(
                "Whether %s in %s gives the numbers of its graph on this processor is unknown: %s has no exact outputs "
                "of it. Add them with: perceiver-deploy validate %s --add-exact",
                self.variant,
                session.runtime,
                self.bundle.path,
                self.bundle.path,
            )
            return None
        try:
            verdict = compare_with_graph(expected, run, _allowance(session.runtime, session.settings))
        except (InputError, UsageError) as error:  # an engine for other sizes, a decoder that is asked something else
            log.info("Whether %s in %s conforms is not known: %s", self.variant, session.runtime, error)
            return None
        VERDICTS.keep(key, verdict.model_dump_json().encode(), f"The verdict on {self.variant}")
        return verdict


def _allowance(runtime: str, settings: RuntimeSettings) -> float:
    """What a hint costs, and TF32, which has the 10 bits of half precision and which some providers cannot turn off."""
    hinted = _HINTED.get(settings.hint)
    coarser = BOUNDS["fp16"] if RUNTIMES[runtime].tf32 else 0.0
    return coarser + (BOUNDS[hinted] if hinted is not None else 0.0)


def usual_sample(bundle: Bundle) -> str | None:
    """The golden sample that `load` runs; None where the bundle has none."""
    names = bundle.samples()
    return USUAL_SAMPLE if USUAL_SAMPLE in names else next(iter(names), None)


def known_text(bundle: Bundle, variant: str, runtime: str) -> str:
    """What is known of a variant in a runtime of the CPU here, by the route that `run` takes, without running it."""
    if (sample := usual_sample(bundle)) is None:
        return "unknown: the bundle has no golden samples"
    chosen = bundle.variant(variant)
    if chosen.precision != "fp32" and sample not in bundle.exact_outputs(variant):
        return "unknown: the bundle has no exact outputs of it"
    route: Route = "full" if "full" in chosen.files else "stages"
    verdict = _read(verdict_key(bundle, variant, runtime, "cpu", DEFAULTS, route))
    if verdict is None:
        return "not checked yet"
    return f"{'conforms' if verdict.conforms else 'does not conform'}: {verdict.text()}"


def verdict_key(
    bundle: Bundle, variant: str, runtime: str, device: str, settings: RuntimeSettings, route: Route
) -> str:
    """What the verdict is kept under: a digest of everything it depends on."""
    files, manifest = bundle.variant(variant).files, bundle.manifest
    sample = usual_sample(bundle) or ""
    graphs = [part for stage in sorted(files) for part in (files[stage], files[stage] + DATA_SUFFIX)]
    about = [manifest.files[part].sha256 for part in [*graphs, sample] if part in manifest.files]
    about += [manifest.files[file].sha256 for file in [bundle.exact_outputs(variant).get(sample)] if file is not None]
    about += [manifest.files[engine.file].sha256 for engine in manifest.engines.values() if engine.variant == variant]
    about += [variant, runtime, device, settings.hint, str(settings.static_shapes), route]
    about += [processor_kind(), *sorted(processor_features()), os.environ.get("NVIDIA_TF32_OVERRIDE", "")]
    about += [f"{package} {version}" for package, version in installed_packages().items()]
    about.append(__version__)
    return hashlib.sha256("\n".join(about).encode()).hexdigest()


def _read(key: str) -> Conformance | None:
    """What is kept; None where nothing is, or it cannot be used: it is measured again."""
    try:
        content = VERDICTS.read(key)
        return None if content is None else Conformance.model_validate_json(content)
    except (OSError, ValidationError):
        return None


def save_exact(path: Path, routes: dict[Route, tuple[Arrays, dict[str, float]]]) -> None:
    """Write what a variant gives exactly, with its bounds, as `expected_outputs` reads it."""
    arrays: dict[str, Any] = {}
    for route, (outputs, bounds) in routes.items():
        arrays |= {f"{route}.{name}": array for name, array in outputs.items()}
        arrays |= {f"{route}_bound.{name}": np.float64(bound) for name, bound in bounds.items()}
    np.savez(path, **arrays)  # not compressed: the C++ library reads it too
