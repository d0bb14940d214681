"""Plots of a benchmark: latency against batch and size, accuracy against speed, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_deploy.errors import requires
from perceiver_deploy.evaluate.report.benchmark_document import BenchmarkReport, Latency, Measurement
from perceiver_deploy.evaluate.report.page import INK, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1")
"""Told apart by colour-blind people, on light and dark (Okabe and Ito, 2008; the last is ours)."""
_MARKERS = "osD^vP*"
_INCHES = (7.0, 3.6)


def benchmark_plots(report: BenchmarkReport) -> tuple[Plot, ...]:
    """Those that the report has figures for."""
    return tuple(_plots(report))


def candidate_name(report: BenchmarkReport, measurement: Measurement) -> str:
    """Its name, with the bundle's where there are several."""
    several = len({m.bundle for m in report.measurements}) > 1
    return f"{Path(measurement.bundle).name} {measurement.name}" if several else measurement.name


def _plots(report: BenchmarkReport) -> Iterator[Plot]:
    first = report.measurements[0].latencies[0]
    if len(report.settings.batches) > 1:
        figure = _curves(report, "batch size", lambda one: one.batch if one.sizes == first.sizes else None)
        yield Plot("latency_by_batch", "Latency against batch size", figure)
    for axis in varied_axes(report):
        others = {name: size for name, size in first.sizes.items() if name != axis}

        def size(one: Latency, axis: str = axis, others: dict[str, int] = others) -> int | None:
            same = one.batch == first.batch and {name: one.sizes[name] for name in others} == others
            return one.sizes[axis] if same else None

        yield Plot(f"latency_by_{axis}", f"Latency against {axis}, batch {first.batch}", _curves(report, axis, size))
    if all(m.accuracy is not None for m in report.measurements):
        yield Plot("accuracy_by_speed", "Accuracy against speed", _accuracy_by_speed(report))
    if report.layer_errors:
        yield Plot("error_by_layer", "Signal to error of each layer against eager float64", _error_by_layer(report))
    yield Plot("memory", "Peak memory of the process", _memory(report))


def varied_axes(report: BenchmarkReport) -> list[str]:
    """Axes that were timed at several sizes."""
    latencies = [latency for m in report.measurements for latency in m.latencies]
    names = dict.fromkeys(name for latency in latencies for name in latency.sizes)
    return [name for name in names if len({latency.sizes.get(name) for latency in latencies}) > 1]


def new_figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """An empty plot with a grid."""
    with requires("report", "Drawing plots"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.tick_params(which="both", color=INK, labelcolor=INK)
    axes.spines[:].set_color(INK)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def add_legend(axes: Axes) -> None:
    """A legend in the colour of the text."""
    axes.legend(frameon=False, fontsize="small", labelcolor=INK)


def style(index: int) -> dict[str, Any]:
    """Colour and marker of a series."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": _MARKERS[index % len(_MARKERS)]}


def _curves(report: BenchmarkReport, label: str, x_of: Callable[[Latency], int | None]) -> Figure:
    """Median latency of every candidate, with a bar up to p90."""
    figure, axes = new_figure(label, "latency, ms (bar: p90)")
    for index, measurement in enumerate(report.measurements):
        points = sorted(
            (x, 1000 * one.p50, 1000 * (one.p90 - one.p50))
            for one in measurement.latencies
            if (x := x_of(one)) is not None
        )
        xs, medians, above = zip(*points, strict=True)
        axes.errorbar(
            xs,
            medians,
            yerr=[[0] * len(xs), above],
            label=candidate_name(report, measurement),
            capsize=2,
            **style(index),
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    add_legend(axes)
    return figure


def _accuracy_by_speed(report: BenchmarkReport) -> Figure:
    """The first metric with its interval against speed-up; a line joins those that no other beats in both."""
    assert report.measurements[0].accuracy is not None
    metric = report.measurements[0].accuracy.metrics[0]
    scale = 100 if metric.unit == "%" else 1
    figure, axes = new_figure(
        f"speed-up over eager, batch {report.settings.batches[0]}", f"{metric.metric}, {metric.unit}"
    )
    points = []
    for index, measurement in enumerate(report.measurements):
        assert measurement.accuracy is not None
        own, speed = measurement.accuracy.metrics[0], measurement.latencies[0].speed_up
        if own.value is None or own.interval is None:  # everything is lost
            continue
        value, low, high = (scale * figure for figure in (own.value, *own.interval))
        name = candidate_name(report, measurement)
        axes.errorbar(
            [speed], [value], yerr=[[value - low], [high - value]], linestyle="", capsize=3, label=name, **style(index)
        )
        points.append((speed, value))
    front = pareto_front(points, higher_is_better=metric.higher_is_better)
    axes.plot(*zip(*front, strict=True), color="#888888", linestyle="--", zorder=0, label="best of both")
    if not metric.higher_is_better:
        axes.invert_yaxis()
    add_legend(axes)
    return figure


def pareto_front(points: Sequence[tuple[float, float]], *, higher_is_better: bool) -> list[tuple[float, float]]:
    """Points (speed, metric) than which no other is both as fast and as good, by speed."""
    sign = 1 if higher_is_better else -1
    front: list[tuple[float, float]] = []
    for speed, value in sorted(points, key=lambda point: (-point[0], -sign * point[1])):
        if not front or sign * value > sign * front[-1][1]:
            front.append((speed, value))
    return front[::-1]


def _error_by_layer(report: BenchmarkReport) -> Figure:
    """The module of each layer that loses most, a series a variant, layers in the order of the graph."""
    figure, axes = new_figure("", "least SQNR of its modules, dB")
    order = list(dict.fromkeys(name for times in report.layer_times for name in times.names()))
    layers = [name for name in order if any(name in errors.sqnr_db for errors in report.layer_errors)]
    several = len({errors.bundle for errors in report.layer_errors}) > 1
    for index, errors in enumerate(report.layer_errors):
        points = [(place, errors.sqnr_db[name]) for place, name in enumerate(layers) if name in errors.sqnr_db]
        name = f"{Path(errors.bundle).name} {errors.variant}" if several else errors.variant
        axes.plot(*zip(*points, strict=True), label=name, **style(index))
    axes.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize="x-small")
    add_legend(axes)
    return figure


def _memory(report: BenchmarkReport) -> Figure:
    figure, axes = new_figure("MB of the host", "")
    names = [candidate_name(report, m) for m in report.measurements]
    megabytes = [max(one.peak_bytes for one in m.latencies) / 1e6 for m in report.measurements]
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(names))]
    axes.bar_label(axes.barh(names, megabytes, color=colours), fmt="%.0f", padding=3, color=INK)
    axes.invert_yaxis()
    return figure
