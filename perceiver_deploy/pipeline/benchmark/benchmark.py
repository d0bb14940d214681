"""Benchmark: accuracy and speed of every variant and runtime against eager."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.errors import BoundError, UsageError
from perceiver_deploy.evaluate.report.benchmark_document import (
    BenchmarkReport,
    CaseRanking,
    Comparison,
    LayerErrors,
    LayerTimes,
    LeftOut,
    Measurement,
    Settings,
)
from perceiver_deploy.evaluate.report.benchmark_page import page_of_benchmark
from perceiver_deploy.evaluate.report.plots import benchmark_plots
from perceiver_deploy.evaluate.report.regression import compare_reports
from perceiver_deploy.evaluate.speed.scenarios import run_scenarios
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.pipeline.benchmark.layer_errors import measure_layer_errors
from perceiver_deploy.pipeline.benchmark.module_times import time_modules
from perceiver_deploy.pipeline.benchmark.rounds import first_inputs, measure_bundle
from perceiver_deploy.pipeline.reports import require_folder, write_page
from perceiver_deploy.pipeline.samples.source import labelled_data
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.way import Way

BATCHES = (1, 32)
SECONDS = 6.0
_NAME = "benchmark.json"


@dataclass(frozen=True)
class BenchmarkResult:
    """The report, and the files it was written to: JSON, HTML, Markdown, and pictures that were asked for."""

    report: BenchmarkReport
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {**self.report.model_dump(mode="json"), "files": self.files}

    @property
    def report_html(self) -> str:
        """The file to look at."""
        return self.files[1]

    @property
    def failure(self) -> BoundError | None:
        """What the exit code tells of."""
        return regression_failure(self.report.comparison, self.report_html)


def benchmark_bundles(
    bundles: Sequence[str | Path],
    *,
    data: str | None = None,
    batches: Sequence[int] = BATCHES,
    sizes: Sequence[Mapping[str, int]] = (),
    seconds: float = SECONDS,
    threads: int | None = None,
    output: str | Path | None = None,
    against: str | Path | None = None,
    layers: bool = False,
    scenarios: bool = False,
    latency_bound: float | None = None,
    png: bool = False,
) -> BenchmarkResult:
    """Measure eager and every variant in every runtime, interleaved, and write `benchmark.json`, `.html` and `.md`.

    Args:
        bundles: bundles exported with their weights.
        data: data set whose test split accuracy is measured on and whose examples are timed; without it inputs are
            random and accuracy is not measured.
        batches: batch sizes to time.
        sizes: sizes of axes to time, such as {"length": 512}, on random inputs; axes that are not named have their
            usual size. Without it, examples of the data set are timed, or random inputs of the usual sizes.
        seconds: how long to time each batch size at each of the sizes.
        threads: for every candidate.
        output: folder of the reports; by default the first bundle's `reports/`.
        against: `benchmark.json` of an earlier run to compare with.
        layers: say where the time goes, by layer, too, and what each layer of reduced precision is off by.
        scenarios: measure MLPerf's scenarios too, each for `seconds` at least.
        latency_bound: seconds that 99 % of the queries of the scenario Server may take; see `run_scenarios`.
        png: write each plot as a picture too.

    Raises:
        UsageError, BundleError, InputError, MissingError: nothing was measured.
    """
    settings = Settings(
        data=data, batches=tuple(batches), sizes=tuple(map(dict, sizes)), seconds=seconds, threads=threads
    )
    before = None if against is None else BenchmarkReport.read(Path(against))
    opened = [Bundle.open(bundle) for bundle in bundles]
    if not opened or not batches or min(batches) < 1:
        raise UsageError(f"Benchmarking needs a bundle and batch sizes of at least 1, got {list(batches)}.")
    for bundle in opened:
        _check_sizes(bundle, settings)
    path = opened[0].report_path(_NAME) if output is None else Path(output) / _NAME
    require_folder(path.parent)
    data_sets = [None if data is None else labelled_data(bundle, data) for bundle in opened]
    measurements: list[Measurement] = []
    rankings: list[CaseRanking] = []
    left_out: list[LeftOut] = []
    times: list[LayerTimes] = []
    errors: list[LayerErrors] = []
    for bundle, data_set in zip(opened, data_sets, strict=True):
        found = measure_bundle(bundle, data_set, settings)
        measured = found.measurements
        if scenarios:
            first = first_inputs(bundle, data_set, settings)
            measured = [_with_scenarios(bundle, one, first, settings, latency_bound) for one in measured]
        measurements += measured
        rankings += found.rankings
        left_out += found.left_out
        if layers:
            times.append(time_modules(bundle, threads))
            errors += measure_layer_errors(bundle, first_inputs(bundle, data_set, settings))
    report = BenchmarkReport(
        environment=environment_with(threads),
        command=command_line(),
        settings=settings,
        measurements=tuple(measurements),
        rankings=tuple(rankings),
        layer_times=tuple(times),
        layer_errors=tuple(errors),
        left_out=tuple(left_out),
    )
    if before is not None:
        report = report.model_copy(update={"comparison": compare_reports(before, report)})
    files = write_page(path, report.text(), page_of_benchmark(report), benchmark_plots(report), png=png)
    return BenchmarkResult(report, tuple(map(str, files)))


def _with_scenarios(
    bundle: Bundle, measurement: Measurement, inputs: Arrays, settings: Settings, bound: float | None
) -> Measurement:
    log.info("MLPerf's scenarios of %s", measurement.name)
    name = Way(bundle.path, measurement.runtime, measurement.variant)
    stage = bundle.manifest.stages["full"]
    found = run_scenarios(name, settings.threads, inputs, stage, settings.seconds, bound)
    return measurement.model_copy(update={"scenarios": found})


def regression_failure(comparison: Comparison | None, report_html: str) -> BoundError | None:
    """What is worse than in the report that was compared with."""
    if comparison is None or not comparison.regressions:
        return None
    worse = "; ".join(f"{d.candidate}, {d.figure}: {d.before} -> {d.now}" for d in comparison.regressions)
    return BoundError(
        f"{comparison.text()} {worse}. Expected none beyond the noise; look into {report_html}, or keep "
        "the new report as the one to compare with if this is meant."
    )


def command_line() -> str:
    """What this process was started with, the program's folder left out."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def environment_with(threads: int | None) -> dict[str, Any]:
    """The machine, the software, and the threads of every candidate."""
    return {**describe_environment(), "threads": threads or "runtime's choice"}


def _check_sizes(bundle: Bundle, settings: Settings) -> None:
    axes = bundle.manifest.axes
    for sizes in settings.sizes:
        for name, size in sizes.items():
            if name not in axes or name == "batch":
                known = ", ".join(sorted(axes.keys() - {"batch"})) or "none"
                raise UsageError(f"{bundle.path} has no axis {name!r} to give a size; expected one of: {known}.")
            if problem := axes[name].problem(size):
                raise UsageError(f"Axis {name!r} of {bundle.path} cannot have size {size}; expected {problem}.")
