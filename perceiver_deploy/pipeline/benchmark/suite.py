"""A suite: every shipped task exported, converted and measured on its real test set, into one table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perceiver_deploy.data.datasets import DATA_SETS, load_dataset
from perceiver_deploy.errors import MissingError, PerceiverDeployError, UsageError
from perceiver_deploy.evaluate.report.benchmark_document import BenchmarkReport, Settings
from perceiver_deploy.evaluate.report.regression import compare_suites
from perceiver_deploy.evaluate.report.suite_document import FinishedTask, SuiteReport, TaskLines, task_lines
from perceiver_deploy.evaluate.report.suite_page import page_of_suite, speed_ups
from perceiver_deploy.model.checkpoints.load import describe_origin, find_checkpoint, shipped_names
from perceiver_deploy.pipeline.benchmark.benchmark import (
    benchmark_bundles,
    command_line,
    environment_with,
    regression_failure,
)
from perceiver_deploy.pipeline.convert.convert import convert_bundle
from perceiver_deploy.pipeline.export.export import export_model
from perceiver_deploy.pipeline.reports import require_folder, write_page, write_report
from perceiver_deploy.progress import log

BATCHES = (1,)
SECONDS = 6.0
_FINISHED = "finished.json"
_TASK_REPORT = "benchmark.json"


@dataclass(frozen=True)
class SuiteResult:
    """The report, and the files it was written to: JSON, HTML, Markdown, and pictures that were asked for."""

    report: SuiteReport
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {**self.report.model_dump(mode="json"), "files": self.files}

    @property
    def failure(self) -> PerceiverDeployError | None:
        """What the exit code tells of: a regression before a data set that is missing."""
        if worse := regression_failure(self.report.comparison, self.files[1]):
            return worse
        missing = self.report.missing
        if not missing:
            return None
        reasons = " ".join(missing.values())
        return MissingError(f"{len(missing)} of the suite's tasks were not measured ({', '.join(missing)}). {reasons}")


def run_suite(
    output: str | Path,
    *,
    names: Sequence[str] = (),
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
    threads: int | None = None,
    against: str | Path | None = None,
    png: bool = False,
) -> SuiteResult:
    """Measure the shipped tasks in fp32, bf16 and INT8 beside eager, into `modalities.json`, `.html` and `.md`.

    A task whose report is already in `output`, of the same checkpoint, settings and versions, is not measured again, so
    a run that was stopped goes on. A task whose data set is missing is named, and the others are measured.

    Args:
        output: folder of the bundles, of each task's own report, and of the suite's.
        names: shipped tasks; all by default.
        batches: batch sizes to time; the table shows the first.
        seconds: how long to time each.
        threads: for every candidate.
        against: `modalities.json` of an earlier run to compare with, whose tasks' own reports are in folders beside it.
        png: write the plot as a picture too.

    Raises:
        UsageError: there is no such task.
        InputError: the earlier run cannot be read.
        ExportError, BundleError: a task could not be measured; what was measured is kept.
    """
    shipped = shipped_names()
    if unknown := sorted({*names} - {*shipped}):
        raise UsageError(f"There is no shipped task {unknown[0]!r}; expected one of {', '.join(shipped)}.")
    folder = Path(output)
    require_folder(folder)
    before = None if against is None else _task_reports(Path(against))
    tasks: list[TaskLines] = []
    missing: dict[str, str] = {}
    for name in names or shipped:
        wanted = Settings(data=name, batches=tuple(batches), sizes=(), seconds=seconds, threads=threads)
        try:
            tasks.append(_measure_task(name, folder, wanted))
        except MissingError as error:
            log.warning("%s is left out. %s", name, error)
            missing[name] = str(error)
    report = SuiteReport(
        environment=environment_with(threads),
        command=command_line(),
        batch=batches[0],
        tasks=tuple(tasks),
        missing=missing,
    )
    if before is not None:
        now = {task.name: BenchmarkReport.read(folder / task.name / _TASK_REPORT) for task in tasks}
        report = report.model_copy(update={"comparison": compare_suites(before, now)})
    plots = (speed_ups(report),) if tasks else ()
    files = write_page(folder / "modalities.json", report.text(), page_of_suite(report), plots, png=png)
    return SuiteResult(report, tuple(map(str, files)))


def _task_reports(path: Path) -> dict[str, BenchmarkReport]:
    """The own report of each task of a suite."""
    names = [task.name for task in SuiteReport.read(path).tasks]
    return {name: BenchmarkReport.read(path.parent / name / _TASK_REPORT) for name in names}


def _measure_task(name: str, folder: Path, settings: Settings) -> TaskLines:
    own = folder / name
    condition = {
        "checkpoint": describe_origin(find_checkpoint(name))["sha256"],
        "settings": settings,
        "environment": environment_with(settings.threads),
    }
    if (lines := _measured_before(own / _FINISHED, condition)) is not None:
        log.info("%s was measured before", name)
        return lines
    load_dataset(name)  # before anything is made
    log.info("Measuring %s", name)
    started = time.perf_counter()
    bundle = own / f"{name}.bundle"
    export_model(name, bundle, force=True)
    convert_bundle(bundle, precision="bf16")
    convert_bundle(bundle, precision="int8", calibration=name)
    result = benchmark_bundles(
        [bundle],
        data=name,
        batches=settings.batches,
        seconds=settings.seconds,
        threads=settings.threads,
        output=own,
    )
    lines = task_lines(name, DATA_SETS[name].task, result.report, time.perf_counter() - started)
    write_report(own / _FINISHED, FinishedTask(**condition, lines=lines).model_dump_json() + "\n")
    return lines


def _measured_before(path: Path, condition: dict[str, Any]) -> TaskLines | None:
    """The lines that an earlier run wrote, if it measured the same in the same environment."""
    try:
        found = FinishedTask.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return found.lines if found == FinishedTask(**condition, lines=found.lines) else None
