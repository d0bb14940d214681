"""How latency grows with an axis: the exponent p of seconds = c * size ** p."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perceiver_deploy.evaluate.report.benchmark_document import BenchmarkReport, Latency
from perceiver_deploy.evaluate.report.page import Table
from perceiver_deploy.evaluate.report.plots import candidate_name, varied_axes

_LEAST_SIZES = 3


def fit_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of least squares of the logarithms: 1 is linear, 0 does not depend on the size."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def scaling_tables(report: BenchmarkReport) -> tuple[Table, ...]:
    """A table for each axis that was timed at three or more sizes, at the first batch size and first other sizes.

    Beside the exponent over all sizes is that between the two largest, where the share of work that does not depend on
    the axis is least.
    """
    tables = []
    for axis in varied_axes(report):
        rows = []
        for measurement in report.measurements:
            curve = _curve(measurement.latencies, axis)
            if len(curve) >= _LEAST_SIZES:
                sizes, seconds = zip(*curve, strict=True)
                exponents = (fit_exponent(sizes, seconds), fit_exponent(sizes[-2:], seconds[-2:]))
                rows.append((candidate_name(report, measurement), *(f"{exponent:.2f}" for exponent in exponents)))
        if rows:
            header = ("candidate", "exponent, all sizes", "exponent, two largest")
            tables.append(Table(f"Growth of the median with {axis}", header, tuple(rows)))
    return tuple(tables)


def _curve(latencies: Sequence[Latency], axis: str) -> list[tuple[int, float]]:
    first = latencies[0]
    others = {name: size for name, size in first.sizes.items() if name != axis}
    return sorted(
        (latency.sizes[axis], latency.p50)
        for latency in latencies
        if latency.batch == first.batch and latency.sizes == {**others, axis: latency.sizes.get(axis)}
    )
