"""The rounds of a benchmark: all candidates of one bundle, each in a process of its own, called in turn."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import opt_sizes
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.metrics import collect_outputs
from perceiver_deploy.errors import ParityError
from perceiver_deploy.evaluate.accuracy.figures import AccuracyFigures, accuracy_figures
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.evaluate.parity.verdicts import compare, finite_or_none
from perceiver_deploy.evaluate.report.benchmark_document import CaseRanking, Latency, LeftOut, Measurement, Settings
from perceiver_deploy.evaluate.speed.ranking import median_interval, rank
from perceiver_deploy.evaluate.speed.workers import Worker, time_round_robin, warm_up
from perceiver_deploy.progress import log, track
from perceiver_deploy.runtimes.catalogue import EAGER
from perceiver_deploy.runtimes.nvidia.families import FAMILIES
from perceiver_deploy.runtimes.nvidia.side_car import engine_of
from perceiver_deploy.runtimes.opening import runtimes_here
from perceiver_deploy.runtimes.way import Way


@dataclass
class _Candidate:
    """A worker, and what was measured on it so far."""

    worker: Worker[Way]
    first_seconds: float = 0.0
    accuracy: AccuracyFigures | None = None
    latencies: list[Latency] = field(default_factory=list)


@dataclass(frozen=True)
class MeasuredBundle:
    """Every candidate of a bundle, eager first, who is fastest at each of the sizes, and who was left out."""

    measurements: list[Measurement]
    rankings: list[CaseRanking]
    left_out: list[LeftOut]


def measure_bundle(bundle: Bundle, data: DataSet | None, settings: Settings) -> MeasuredBundle:
    """Measure every candidate of a bundle that gives its graph's numbers."""
    rankings, left_out = [], []
    with contextlib.ExitStack() as stack:
        candidates = []
        for name in candidate_names(bundle):
            log.info("Starting %s", name)
            try:
                worker = Worker(name, settings.threads)
            except ParityError as error:  # numbers that are not the graph's have no place in a comparison
                left_out.append(LeftOut(bundle=str(bundle.path), candidate=str(name), reason=str(error)))
                log.warning("%s", left_out[-1].text())
                continue
            candidates.append(_Candidate(stack.enter_context(worker)))
        cases = list(_cases(bundle, data, settings))
        for candidate in candidates:
            candidate.worker.keep(cases[0][1])
            candidate.first_seconds = candidate.worker.time_run()
        if data is not None:
            _measure_accuracy(candidates, data)
        for batch, inputs in cases:
            rankings.append(_time(bundle, candidates, batch, inputs, settings.seconds))
    return MeasuredBundle([_measurement(bundle, candidate) for candidate in candidates], rankings, left_out)


def candidate_names(bundle: Bundle) -> list[Way]:
    """Eager, and every variant in every runtime that can run it here."""
    names = [Way(bundle.path, EAGER, "fp32")]
    for variant in bundle.manifest.variants:
        names += [Way(bundle.path, runtime, variant) for runtime in runtimes_here(bundle, variant)]
    return names


def first_inputs(bundle: Bundle, data: DataSet | None, settings: Settings) -> Arrays:
    """What is timed first."""
    return next(_cases(bundle, data, settings))[1]


def _cases(bundle: Bundle, data: DataSet | None, settings: Settings) -> Iterator[tuple[int, Arrays]]:
    """Batch sizes with inputs: real examples, repeated where there are too few, or random ones of given sizes."""
    manifest = bundle.manifest
    for sizes in settings.sizes or ({},):
        for batch in settings.batches:
            if data is not None and not settings.sizes:
                yield batch, data.test.rows(np.arange(batch) % len(data.test))
            else:
                case = Case("benchmark", opt_sizes(manifest.axes) | sizes | {"batch": batch})
                yield batch, make_inputs(manifest.signature, case, manifest.preprocessing)


def _measure_accuracy(candidates: Sequence[_Candidate], data: DataSet) -> None:
    eager = collect_outputs(candidates[0].worker.run, data.test)
    for candidate in track(candidates, "Accuracy", len(candidates)):
        outputs = eager if candidate is candidates[0] else collect_outputs(candidate.worker.run, data.test)
        candidate.accuracy = accuracy_figures(outputs, eager, data)


def _time(bundle: Bundle, candidates: Sequence[_Candidate], batch: int, inputs: Arrays, seconds: float) -> CaseRanking:
    sizes = _sizes_of(bundle, inputs)
    log.info("Timing batch %d%s", batch, "".join(f", {name} {size}" for name, size in sizes.items()))
    warmed = []
    for candidate in candidates:
        candidate.worker.keep(inputs)
        warmed.append(warm_up(candidate.worker, seconds / 2))
    workers = [candidate.worker for candidate in candidates]
    samples = [*time_round_robin(workers, inputs, seconds=seconds, warm_up=1).values()]
    output = bundle.manifest.stages["full"].outputs[0].name
    reference = workers[0].last_outputs()[output]
    for candidate, own, (runs, stable) in zip(candidates, samples, warmed, strict=True):
        ratios = [eager / mine for eager, mine in zip(samples[0], own, strict=True)]
        interval = median_interval(ratios)
        p50, p90, p99 = (float(np.percentile(own, percent)) for percent in (50, 90, 99))
        relative_l2 = compare(candidate.worker.last_outputs()[output], reference).relative_l2
        candidate.latencies.append(
            Latency(
                batch=batch,
                sizes=sizes,
                p50=p50,
                p90=p90,
                p99=p99,
                throughput=batch / p50,
                speed_up=statistics.median(ratios),
                speed_up_interval=(interval.low, interval.high),
                warm_up=runs + 1,
                stable=stable,
                peak_bytes=candidate.worker.peak_bytes(),
                device_bytes=candidate.worker.device_bytes(),
                relative_l2=finite_or_none(relative_l2),
                samples=tuple(own),
            )
        )
    ranking = rank(samples)
    names = [str(worker.name) for worker in workers]
    return CaseRanking(
        bundle=str(bundle.path),
        batch=batch,
        sizes=sizes,
        fastest=names[ranking.fastest],
        tied=tuple(names[index] for index in ranking.tied),
        noisy=ranking.noisy,
    )


def _sizes_of(bundle: Bundle, inputs: Arrays) -> dict[str, int]:
    """The size of every axis but the batch that inputs have, where they name it."""
    return {
        size: length
        for spec in bundle.manifest.stages["full"].inputs
        for size, length in zip(spec.shape, inputs[spec.name].shape, strict=True)
        if isinstance(size, str) and size in bundle.manifest.axes and size != "batch"
    }


def _measurement(bundle: Bundle, candidate: _Candidate) -> Measurement:
    name = candidate.worker.name
    return Measurement(
        bundle=str(bundle.path),
        name=str(name),
        runtime=name.runtime,
        variant=name.variant,
        file_bytes=_file_bytes(bundle, name),
        load_seconds=candidate.worker.load_seconds,
        first_seconds=candidate.first_seconds,
        accuracy=candidate.accuracy,
        latencies=tuple(candidate.latencies),
    )


def _file_bytes(bundle: Bundle, name: Way) -> int:
    """Of what `run` reads."""
    graphs = bundle.variant(name.variant).files
    files = [graphs["full"]] if "full" in graphs else [*graphs.values()]
    if name.is_eager:
        files = ["model.safetensors"]
    elif name.runtime in FAMILIES:
        files = [
            bundle.manifest.engines[engine_of(bundle, name.runtime, name.variant, stage)].file
            for stage in (["full"] if "full" in graphs else graphs)
        ]
    return sum(map(bundle.manifest.stored_bytes, files))
