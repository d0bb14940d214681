"""The report of a suite: one line a task and metric, with what each variant gives, loses and gains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from perceiver_deploy.evaluate.accuracy.figures import MetricFigures
from perceiver_deploy.evaluate.report.benchmark_document import (
    BenchmarkReport,
    Comparison,
    LeftOut,
    Measurement,
    Settings,
    compact_json,
    read_report,
)
from perceiver_deploy.strict import Strict


class VariantLine(Strict):
    """A variant in the runtime that was fastest at the first batch size; figures are those of `Measurement`."""

    variant: str
    runtime: str
    metrics: tuple[MetricFigures, ...]
    seconds: float
    speed_up: float
    speed_up_interval: tuple[float, float]
    file_bytes: int


class TaskLines(Strict):
    """A shipped task: eager and every variant.

    `seconds` is what making and measuring it took; `left_out` those that were not measured.
    """

    name: str
    task: str
    examples: int
    eager: VariantLine
    variants: tuple[VariantLine, ...]
    seconds: float
    left_out: tuple[LeftOut, ...] = ()


class FinishedTask(Strict):
    """The lines of a task with what they depend on, so that a suite that was stopped goes on."""

    checkpoint: str
    settings: Settings
    environment: dict[str, Any]
    lines: TaskLines


class SuiteReport(Strict):
    """What was measured, and the tasks that were not because something is missing, with what to do."""

    schema_version: Literal[1] = 1
    suite: Literal["modalities"] = "modalities"
    environment: dict[str, Any]
    command: str
    batch: int
    tasks: tuple[TaskLines, ...]
    missing: dict[str, str]
    comparison: Comparison | None = None

    @classmethod
    def read(cls, path: Path) -> SuiteReport:
        """The report that a file holds.

        Raises:
            InputError: there is no such file, or it is no report.
        """
        return read_report(cls, path, "report of `perceiver-deploy benchmark --suite`")

    def text(self) -> str:
        """The content of `modalities.json`."""
        return compact_json(self.model_dump(mode="json"))


def task_lines(name: str, task: str, report: BenchmarkReport, seconds: float) -> TaskLines:
    """The lines of a task from its benchmark, without the scores of single examples, which stay there."""
    eager, *others = report.measurements
    by_variant: dict[str, list[Measurement]] = {}
    for measurement in others:
        by_variant.setdefault(measurement.variant, []).append(measurement)
    lines = [_line(min(found, key=lambda m: m.latencies[0].p50)) for found in by_variant.values()]
    line = _line(eager)
    examples = max(metric.examples for metric in line.metrics)
    return TaskLines(
        name=name,
        task=task,
        examples=examples,
        eager=line,
        variants=tuple(lines),
        seconds=seconds,
        left_out=report.left_out,
    )


def _line(measurement: Measurement) -> VariantLine:
    assert measurement.accuracy is not None  # a suite has data
    latency = measurement.latencies[0]
    return VariantLine(
        variant=measurement.variant,
        runtime=measurement.runtime,
        metrics=tuple(metric.model_copy(update={"scores": ()}) for metric in measurement.accuracy.metrics),
        seconds=latency.p50,
        speed_up=latency.speed_up,
        speed_up_interval=latency.speed_up_interval,
        file_bytes=measurement.file_bytes,
    )


def suite_schema() -> str:
    """Text of the published `modalities.schema.json`."""
    return json.dumps(SuiteReport.model_json_schema(), indent=2) + "\n"
