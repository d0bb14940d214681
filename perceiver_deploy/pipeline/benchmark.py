"""Benchmark: accuracy and speed of every variant and runtime against eager."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle import Bundle
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.metrics import collect_outputs
from perceiver_deploy.errors import UsageError
from perceiver_deploy.evaluate.accuracy import Accuracy, measure_accuracy
from perceiver_deploy.evaluate.environment import describe_environment
from perceiver_deploy.evaluate.grid import Case, make_inputs
from perceiver_deploy.evaluate.html import render_benchmark
from perceiver_deploy.evaluate.parity import Figures, compare
from perceiver_deploy.evaluate.workers import CandidateName, Worker, time_round_robin
from perceiver_deploy.manifest import opt_sizes
from perceiver_deploy.pipeline.held_out import labelled_data
from perceiver_deploy.pipeline.reports import write_report
from perceiver_deploy.progress import log, track
from perceiver_deploy.runtimes.loading import runtimes_here
from perceiver_deploy.runtimes.side_car import engine_of
from perceiver_deploy.runtimes.tensorrt_families import FAMILIES

BATCHES = (1, 32)
SECONDS = 6.0


@dataclass(frozen=True)
class Latency:
    """Latency of one candidate at one batch size, raw samples in seconds, and how its outputs compare with eager's."""

    batch: int
    samples: tuple[float, ...]
    output: Figures

    def percentile(self, percent: float) -> float:
        """Seconds that `percent` of the runs did not exceed."""
        return float(np.percentile(self.samples, percent))


@dataclass(frozen=True)
class Measurement:
    """Everything measured on one candidate. `speed_up` is eager's median over its own, by batch size."""

    bundle: str
    name: str
    runtime: str
    variant: str
    file_bytes: int
    load_seconds: float
    accuracy: Accuracy | None
    latencies: tuple[Latency, ...]
    speed_up: dict[int, float]

    def to_json(self) -> dict[str, Any]:
        """A plain dict with percentiles and raw samples."""
        latencies = [
            {
                "batch": latency.batch,
                **{f"p{percent}": latency.percentile(percent) for percent in (50, 90, 99)},
                "throughput": latency.batch / latency.percentile(50),
                "output": latency.output.to_json(),
                "samples": latency.samples,
            }
            for latency in self.latencies
        ]
        accuracy = None if self.accuracy is None else self.accuracy.to_json()
        return {**self.__dict__, "accuracy": accuracy, "latencies": latencies}


@dataclass(frozen=True)
class BenchmarkResult:
    """Measurements, eager first, and where the reports are."""

    measurements: tuple[Measurement, ...]
    environment: dict[str, Any]
    report_json: str
    report_html: str

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {**self.__dict__, "measurements": [measurement.to_json() for measurement in self.measurements]}


def benchmark_bundles(
    bundles: Sequence[str | Path],
    *,
    data: str | None = None,
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
    threads: int | None = None,
    output: str | Path | None = None,
) -> BenchmarkResult:
    """Measure eager and every variant in every runtime, interleaved, and write `benchmark.json` and `.html`.

    Args:
        bundles: bundles exported with their weights.
        data: data set whose test split accuracy is measured on and whose examples are timed; without it inputs are
            random and accuracy is not measured.
        batches: batch sizes to time.
        seconds: how long to time each batch size.
        threads: for every candidate.
        output: folder of the reports; by default the first bundle's `reports/`.

    Raises:
        UsageError, BundleError, InputError, MissingError: nothing was measured.
    """
    if not bundles or not batches or min(batches) < 1:
        raise UsageError(f"Benchmarking needs a bundle and batch sizes of at least 1, got {list(batches)}.")
    opened = [Bundle.open(bundle) for bundle in bundles]
    data_sets = [None if data is None else labelled_data(data, bundle) for bundle in opened]
    measurements = []
    for bundle, data_set in zip(opened, data_sets, strict=True):
        measurements += _measure(bundle, data_set, batches, seconds, threads)
    paths = [
        opened[0].report_path(name) if output is None else Path(output) / name
        for name in ("benchmark.json", "benchmark.html")
    ]
    environment = {**describe_environment(), "threads": threads or "runtime's choice"}
    document = {
        "environment": environment,
        "data": data,
        "measurements": [measurement.to_json() for measurement in measurements],
    }
    report_json = write_report(paths[0], json.dumps(document, indent=1, allow_nan=False) + "\n")
    report_html = write_report(paths[1], render_benchmark(document))
    return BenchmarkResult(tuple(measurements), environment, str(report_json), str(report_html))


def _measure(
    bundle: Bundle, data: DataSet | None, batches: Sequence[int], seconds: float, threads: int | None
) -> list[Measurement]:
    output = bundle.manifest.stages["full"].outputs[0].name
    with contextlib.ExitStack() as stack:
        workers = []
        for name in _candidates(bundle):
            log.info("Starting %s", name)
            workers.append(stack.enter_context(Worker(name, threads)))
        accuracies: dict[CandidateName, Accuracy] = {}
        if data is not None:
            eager = collect_outputs(workers[0].run, data.test)
            for worker in track(workers, "Accuracy", len(workers)):
                outputs = eager if worker is workers[0] else collect_outputs(worker.run, data.test)
                accuracies[worker.name] = measure_accuracy(outputs, eager, data)
        latencies: dict[CandidateName, list[Latency]] = {worker.name: [] for worker in workers}
        for batch in batches:
            log.info("Timing batch %d", batch)
            inputs = _inputs(bundle, data, batch)
            reference = workers[0].run(inputs)[output]
            compared = {worker.name: compare(worker.run(inputs)[output], reference) for worker in workers}
            for timed, samples in time_round_robin(workers, inputs, seconds=seconds).items():
                latencies[timed].append(Latency(batch, tuple(samples), compared[timed]))
    medians = [latency.percentile(50) for latency in latencies[workers[0].name]]
    return [
        Measurement(
            bundle=str(bundle.path),
            name=str(worker.name),
            runtime=worker.name.runtime,
            variant=worker.name.variant,
            file_bytes=_file_bytes(bundle, worker.name),
            load_seconds=worker.load_seconds,
            accuracy=accuracies.get(worker.name),
            latencies=tuple(latencies[worker.name]),
            speed_up={
                latency.batch: median / latency.percentile(50)
                for median, latency in zip(medians, latencies[worker.name], strict=True)
            },
        )
        for worker in workers
    ]


def _candidates(bundle: Bundle) -> list[CandidateName]:
    names = [CandidateName(bundle.path, "torch", "fp32")]
    for variant in bundle.manifest.variants:
        names += [CandidateName(bundle.path, runtime, variant) for runtime in runtimes_here(bundle, variant)]
    return names


def _file_bytes(bundle: Bundle, name: CandidateName) -> int:
    """Of what `run` reads."""
    graphs = bundle.variant(name.variant).files
    files = [graphs["full"]] if "full" in graphs else [*graphs.values()]
    if name.runtime == "torch":
        files = ["model.safetensors"]
    elif name.runtime in FAMILIES:
        files = [
            bundle.manifest.engines[engine_of(bundle, name.runtime, name.variant, stage)].file
            for stage in (["full"] if "full" in graphs else graphs)
        ]
    return sum(map(bundle.manifest.stored_bytes, files))


def _inputs(bundle: Bundle, data: DataSet | None, batch: int) -> Arrays:
    """Real examples, repeated where there are too few, or random ones at opt sizes."""
    if data is not None:
        return data.test.rows(np.arange(batch) % len(data.test))
    manifest = bundle.manifest
    sizes = opt_sizes(manifest.axes) | {"batch": batch}
    return make_inputs(manifest.signature, Case("benchmark", sizes), manifest.preprocessing)
