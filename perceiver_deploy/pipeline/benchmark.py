"""Benchmark: accuracy and speed of every variant and runtime against eager."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.bundle import Bundle
from perceiver_deploy.data.datasets import DataSet, load_dataset
from perceiver_deploy.data.raw_sets import raw_data_set
from perceiver_deploy.errors import BoundError, InputError, UsageError
from perceiver_deploy.evaluate.benchmark_report import BenchmarkReport, Measurement, Ranking, Settings
from perceiver_deploy.evaluate.environment import describe_environment
from perceiver_deploy.evaluate.html import render_benchmark
from perceiver_deploy.evaluate.regression import compare_reports
from perceiver_deploy.pipeline.benchmark_rounds import measure_bundle
from perceiver_deploy.pipeline.reports import write_report

BATCHES = (1, 32)
SECONDS = 6.0


@dataclass(frozen=True)
class BenchmarkResult:
    """The report, and where it was written."""

    report: BenchmarkReport
    report_json: str
    report_html: str

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        paths = {"report_json": self.report_json, "report_html": self.report_html}
        return {**self.report.model_dump(mode="json"), **paths}

    @property
    def failure(self) -> BoundError | None:
        """What the exit code tells of."""
        comparison = self.report.comparison
        if comparison is None or not comparison.regressions:
            return None
        worse = "; ".join(f"{d.candidate}, {d.figure}: {d.before} -> {d.now}" for d in comparison.regressions)
        return BoundError(
            f"{comparison.text()} {worse}. Expected none beyond the noise; look into {self.report_html}, or keep "
            "the new report as the one to compare with if this is meant."
        )


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
) -> BenchmarkResult:
    """Measure eager and every variant in every runtime, interleaved, and write `benchmark.json` and `.html`.

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
    data_sets = [None if data is None else fitting_data(load_dataset(data), bundle) for bundle in opened]
    measurements: list[Measurement] = []
    rankings: list[Ranking] = []
    for bundle, data_set in zip(opened, data_sets, strict=True):
        measured, ranked = measure_bundle(bundle, data_set, settings)
        measurements += measured
        rankings += ranked
    report = BenchmarkReport(
        environment=environment_with(threads),
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        settings=settings,
        measurements=tuple(measurements),
        rankings=tuple(rankings),
    )
    if before is not None:
        report = report.model_copy(update={"comparison": compare_reports(before, report)})
    paths = [
        opened[0].report_path(name) if output is None else Path(output) / name
        for name in ("benchmark.json", "benchmark.html")
    ]
    report_json = write_report(paths[0], report.text())
    report_html = write_report(paths[1], render_benchmark(report))
    return BenchmarkResult(report, str(report_json), str(report_html))


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


def fitting_data(data: DataSet, bundle: Bundle) -> DataSet:
    """The data set in the form that the bundle takes; one whose metric would mean nothing for the model is refused.

    Raises:
        InputError: it is for another task or has other labels.
    """
    data.require_task(bundle.manifest.task, str(bundle.path))
    if bundle.manifest.labels != data.labels:
        theirs, ours = (", ".join(labels or ("none",))[:60] for labels in (data.labels, bundle.manifest.labels))
        raise InputError(
            f"Data set {data.name!r} has other labels than {bundle.path}: {theirs} against {ours}. "
            "Give the data set that the model was trained for."
        )
    return raw_data_set(data) if bundle.manifest.raw_inputs else data
