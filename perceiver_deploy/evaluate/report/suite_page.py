"""The report of a suite for people: one table of all tasks, and what reduced precision costs and brings."""

from __future__ import annotations

from collections.abc import Iterator

from perceiver_deploy.evaluate.report.benchmark_page import comparison_tables
from perceiver_deploy.evaluate.report.page import Page, Plot, Table, environment_table
from perceiver_deploy.evaluate.report.plots import add_legend, new_figure, style
from perceiver_deploy.evaluate.report.recommendation import recommend_suite
from perceiver_deploy.evaluate.report.suite_document import SuiteReport, VariantLine


def page_of_suite(report: SuiteReport) -> Page:
    """Sentences and tables of a report."""
    return Page(
        title="All shipped tasks",
        summary=tuple(_summary(report)),
        tables=(suite_table(report), *comparison_tables(report.comparison), environment_table(report.environment)),
        command=report.command,
        recommendation=() if (sentence := recommend_suite(report)) is None else (sentence,),
    )


def _summary(report: SuiteReport) -> Iterator[str]:
    minutes = sum(task.seconds for task in report.tasks) / 60
    yield f"{len(report.tasks)} tasks, made and measured in {minutes:.0f} minutes."
    for name in variant_names(report):
        lines = [(task, line) for task in report.tasks for line in task.variants if line.variant == name]
        faster = sum(line.speed_up_interval[0] > 1 for _, line in lines)
        worse = [task.name for task, line in lines if any(metric.worse for metric in line.metrics)]
        loses = f"loses more than chance on {', '.join(worse)}" if worse else "loses no more than chance on any"
        yield f"{name} is faster than eager on {faster} of {len(lines)} tasks and {loses}."
    if report.comparison is not None:
        yield f"Beside the earlier run: {report.comparison.text()}"
    for task in report.tasks:
        for one in task.left_out:
            yield one.text()
    for name, reason in report.missing.items():
        yield f"{name} was not measured. {reason}"
    yield (
        "Each variant is shown in the runtime that was fastest. Lost is what the metric lost against eager on the same "
        "examples, negative where it is better."
    )


def variant_names(report: SuiteReport) -> list[str]:
    """Every variant that a task has."""
    return list(dict.fromkeys(line.variant for task in report.tasks for line in task.variants))


def suite_table(report: SuiteReport) -> Table:
    """Task, data, metric of eager, and of each variant its metric, what it lost, speed-up and size."""
    variants = variant_names(report)
    header = ["data", "task", "metric", "eager", "size"]
    header += [f"{variant}{what}" for variant in variants for what in ("", ", lost", ", speed-up", ", size")]
    rows = []
    for task in report.tasks:
        found = {line.variant: line for line in task.variants}
        for index, metric in enumerate(task.eager.metrics):
            row = [task.name, task.task, metric.metric, metric.value_text(), _size(task.eager)]
            row += [cell for variant in variants for cell in _cells(found.get(variant), index)]
            rows.append(tuple(row))
    return Table(
        f"Every task at batch {report.batch}; threads: {report.environment['threads']}", tuple(header), tuple(rows)
    )


def _cells(line: VariantLine | None, index: int) -> tuple[str, ...]:
    if line is None:
        return ("",) * 4
    metric = line.metrics[index]
    lost = metric.drop_text().partition(" (")[0]
    return metric.value_text(), lost, f"{line.speed_up:.2f}x ({line.runtime})", _size(line)


def _size(line: VariantLine) -> str:
    return f"{line.file_bytes / 1e6:.2f} MB"


def speed_ups(report: SuiteReport) -> Plot:
    """Speed-up of each task, a marker a variant, with its interval."""
    figure, axes = new_figure("speed-up over eager (95 % interval)", "")
    for index, variant in enumerate(variant_names(report)):
        found = [(task.name, line) for task in report.tasks for line in task.variants if line.variant == variant]
        speeds = [line.speed_up for _, line in found]
        low = [line.speed_up - line.speed_up_interval[0] for _, line in found]
        high = [line.speed_up_interval[1] - line.speed_up for _, line in found]
        names = [name for name, _ in found]
        axes.errorbar(speeds, names, xerr=[low, high], linestyle="", capsize=2, label=variant, **style(index))
    axes.axvline(1, color="#888888", linewidth=1)
    axes.invert_yaxis()
    add_legend(axes)
    return Plot("speed_up", f"Speed-up of every task, batch {report.batch}", figure)
