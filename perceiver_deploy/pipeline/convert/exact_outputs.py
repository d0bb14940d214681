"""What a variant's graphs give exactly for the golden samples, with the bounds that rounding explains.

`runtimes.conformance` holds runtimes to them.
"""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from perceiver_deploy.arrays import Arrays, relative_l2
from perceiver_deploy.bundle.bundle import Bundle, Staging, changed_bundle
from perceiver_deploy.bundle.manifest import Axis, Precision, Stage, StageName, exact_file
from perceiver_deploy.bundle.samples import Sample, load_sample
from perceiver_deploy.errors import BundleError, UsageError
from perceiver_deploy.export.exact import exact_options, write_exact
from perceiver_deploy.progress import log, track
from perceiver_deploy.runtimes.checks.bounds import rounding_bound
from perceiver_deploy.runtimes.conformance import Route, expected_outputs, save_exact, usual_sample
from perceiver_deploy.runtimes.cpu.onnxruntime import open_graphs
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.stages.queries import answer_queries

NUDGES = 4
"""How often what is rounded is nudged, each time another route."""
_SECONDS = 15.0
"""Golden samples beyond the first are left out once this has passed: `load` needs one, and each is nudged besides."""


@contextmanager
def exact_session(
    files: Mapping[StageName, Path],
    stages: Mapping[StageName, Stage],
    axes: Mapping[str, Axis],
    seed: int | None = None,
) -> Iterator[Session]:
    """A session that computes the graphs of some stages exactly, nudged where there is a seed."""
    with tempfile.TemporaryDirectory() as folder:
        written = {stage: Path(folder) / file.name for stage, file in files.items()}
        for stage, file in files.items():
            write_exact(file, written[stage], seed)
        with open_graphs(written, stages, axes, exact_options()) as session:
            yield session


def write_exact_outputs(
    staging: Staging, bundle: Bundle, variant: str, precision: Precision, files: Mapping[StageName, Path]
) -> None:
    """Write the exact outputs of a variant for the golden samples, if there are any.

    Raises:
        ExportError: a graph that cannot be computed exactly.
    """
    samples = _samples(bundle)
    if not samples:
        return
    log.info("Computing what %s gives exactly for %d golden samples", variant, len(samples))
    exact = _run(bundle, files, samples, None, _SECONDS)
    seeds = range(NUDGES if precision == "int8" else 0)  # nothing else rounds to INT8
    nudged = [_run(bundle, files, {name: samples[name] for name in exact}, seed, None) for seed in seeds]
    for name, routes in exact.items():
        written: dict[Route, tuple[Arrays, dict[str, float]]] = {}
        for route, outputs in routes.items():
            bounds = {}
            for output, wanted in outputs.items():
                moved = [relative_l2(found[name][route][output], wanted) for found in nudged]
                eager = relative_l2(samples[name].float32[output], samples[name].float64[output])
                bounds[output] = rounding_bound(precision, eager, max(moved, default=0.0))
            written[route] = outputs, bounds
        save_exact(staging.path(exact_file(variant, name)), written)


def add_exact_outputs(bundle: str | Path) -> list[str]:
    """Add exact outputs to a bundle that was written without them; returns the names of the variants.

    Raises:
        BundleError: no such bundle, or it has no golden samples.
        ExportError: as `write_exact_outputs`.
    """
    opened = Bundle.open(bundle)
    if not opened.samples():
        raise BundleError(
            f"{bundle} has no golden samples, because it was exported with --no-validate. Export the checkpoint again "
            "without it."
        )
    lacking = [name for name in opened.manifest.variants if _lacks(opened, name)]
    compressed = [sample for sample in opened.samples() if _is_compressed(opened.file(sample))]
    if not lacking and not compressed:
        return []
    with changed_bundle(bundle) as (staging, opened):
        for name in lacking:
            variant = opened.variant(name)
            files = {stage: opened.file(file) for stage, file in variant.files.items()}
            write_exact_outputs(staging, opened, name, variant.precision, files)
        for sample in compressed:  # of older bundles; the C++ library does not read them
            golden = load_sample(opened.file(sample))
            golden.save(staging.path(sample))
        staging.finish(opened.manifest)
    return lacking


def _lacks(bundle: Bundle, variant: str) -> bool:
    """Whether a variant has no exact outputs of the sample that `load` runs, or others than its outputs."""
    sample = usual_sample(bundle)
    if bundle.variant(variant).precision == "fp32" or sample is None:
        return False
    route: Route = "full" if "full" in bundle.variant(variant).files else "stages"
    try:
        return expected_outputs(bundle, variant, route, sample) is None
    except BundleError as error:
        log.warning("%s", error)
        return True


def _is_compressed(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())


def _samples(bundle: Bundle) -> dict[str, Sample]:
    """The golden samples by file, the one that `load` runs first."""
    usual = usual_sample(bundle)
    names = sorted(bundle.samples(), key=lambda name: name != usual)
    return {name: load_sample(bundle.file(name)) for name in names}


_Routes = dict[str, dict[Route, Arrays]]


def _run(
    bundle: Bundle,
    files: Mapping[StageName, Path],
    samples: Mapping[str, Sample],
    seed: int | None,
    seconds: float | None,
) -> _Routes:
    """Outputs by sample and route, of the samples that there is time for."""
    manifest, started, found = bundle.manifest, time.perf_counter(), _Routes()
    with exact_session(files, manifest.stages, manifest.axes, seed) as session:
        for name, sample in track(samples.items(), "Exact outputs", len(samples)):
            if found and seconds is not None and time.perf_counter() - started > seconds:
                log.info("Golden sample %s is left out for time", sample.name)
                continue
            found[name] = _outputs(session, files, sample.inputs)
    return found


def _outputs(session: Session, files: Mapping[StageName, Path], inputs: Arrays) -> dict[Route, Arrays]:
    routes: dict[Route, Arrays] = {}
    if "full" in files:
        routes["full"] = session.run(inputs)
    if "decoder" in files:
        try:
            routes["stages"] = answer_queries(session, inputs, lambda count: count)
        except UsageError as error:
            log.info("Encoder and decoder are not computed exactly: %s", error)
    return routes
