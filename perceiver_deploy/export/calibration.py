"""Ranges of a graph's tensors on data: the graph is run with them as outputs, some at a time."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import ExportError, InputError, requires
from perceiver_deploy.export.flops import shape_at
from perceiver_deploy.export.graph_files import copy_model
from perceiver_deploy.export.histogram import Histogram
from perceiver_deploy.export.partial_results import PartialResults, Statistic
from perceiver_deploy.progress import track

with requires("cpu", "Calibrating"):
    import onnxruntime

GROUP_BYTES = 512 << 20
"""What the tensors observed in one run may take beside what the graph takes, unless one alone takes more."""


def observe(
    graph: Path,
    tensors: Sequence[str],
    batches: Callable[[], Iterable[Arrays]],
    *,
    count: int = 0,
    partial: Path | None = None,
) -> dict[str, Histogram]:
    """What each tensor of a float graph holds over all batches: see `fill`."""
    histograms = {name: Histogram() for name in tensors}
    fill(histograms, graph, batches, count=count, partial=partial)
    return histograms


def fill(
    statistics: Mapping[str, Statistic],
    graph: Path,
    batches: Callable[[], Iterable[Arrays]],
    *,
    count: int = 0,
    partial: Path | None = None,
) -> None:
    """Show each statistic what the tensor of its name holds in a float graph, over all batches.

    The graph is run once for each group of tensors that take at most `GROUP_BYTES` together. No batch may be larger
    than the first.

    Args:
        statistics: by names of the graph's inputs and of results of its nodes.
        graph: the ONNX file.
        batches: gives the inputs, at each call the same ones in the same order.
        count: number of batches, for the display of progress.
        partial: file for what was seen so far; a run that finds it goes on from there, and removes it at the end.

    Raises:
        InputError: a tensor holds values that are not finite, or there is no batch.
        ExportError: the graph has no such tensor, or its size is not known.
    """
    first = next(iter(batches()), None)
    if first is None:
        raise InputError("There is no calibration data. Give at least one batch.")
    kept = PartialResults(partial)
    done = kept.load(statistics)
    with tempfile.TemporaryDirectory() as folder:
        model = ir.load(copy_model(graph, Path(folder)))
        groups = _groups(model, [*statistics], first)
        steps = enumerate(_steps(groups, batches), 1)
        run: _Run | None = None
        for step, (group, batch) in track(steps, "Calibrating", count * len(groups)):
            if step <= done:
                continue
            if run is None or run.group is not group:
                run = _Run(model, group, Path(folder))
            for name, array in run(batch).items():
                _add(statistics[name], name, array)
            kept.save(statistics, step)
    kept.remove()


def _steps(
    groups: Sequence[list[ir.Value]], batches: Callable[[], Iterable[Arrays]]
) -> Iterator[tuple[list[ir.Value], Arrays]]:
    return ((group, batch) for group in groups for batch in batches())


def _add(statistic: Statistic, name: str, array: NDArray[Any]) -> None:
    try:
        statistic.add(array)
    except InputError as error:
        raise InputError(
            f"Tensor {name} has no range: {error} on the calibration data. Check the data, and that the model gives "
            "finite outputs for them in fp32."
        ) from None


class _Run:
    """Runs a graph for a group of tensors and for nothing else."""

    def __init__(self, model: ir.Model, group: list[ir.Value], folder: Path) -> None:
        self.group = group
        self._given = [str(value.name) for value in group if value.is_graph_input()]
        self._computed = [str(value.name) for value in group if not value.is_graph_input()]
        self._session = None
        if self._computed:
            model.graph.outputs.clear()
            model.graph.outputs.extend(value for value in group if not value.is_graph_input())
            path = folder / "observed.onnx"
            ir.save(model, path)  # external data stay in the file beside it
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, batch: Arrays) -> Arrays:
        """The tensors by name."""
        values = {name: batch[name] for name in self._given}
        if self._session is not None:
            inputs = {spec.name: np.ascontiguousarray(batch[spec.name]) for spec in self._session.get_inputs()}
            values |= dict(zip(self._computed, self._session.run(self._computed, inputs), strict=True))
        return values


def _groups(model: ir.Model, tensors: Sequence[str], batch: Arrays) -> list[list[ir.Value]]:
    """The tensors in the order given, cut where a group would take too much."""
    values = {value.name: value for value in model.graph.inputs}
    values |= {value.name: value for node in model.graph for value in node.outputs}
    sizes = axis_sizes(model, batch)
    groups: list[list[ir.Value]] = []
    free = 0
    for name in dict.fromkeys(tensors):
        value = values.get(name)
        if value is None:
            raise ExportError(f"The graph has no tensor {name!r} to observe. Calibrate on the graph it was named in.")
        if not groups or tensor_bytes(value, sizes) > free:
            groups.append([])
            free = GROUP_BYTES
        groups[-1].append(value)
        free -= tensor_bytes(value, sizes)
    return groups


def axis_sizes(model: ir.Model, batch: Arrays) -> dict[str, int]:
    """Sizes of the axes that a graph's inputs name, in a batch."""
    return {
        str(size.value): found
        for value in model.graph.inputs
        if value.shape is not None
        for size, found in zip(value.shape, batch[str(value.name)].shape, strict=True)
        if isinstance(size, ir.SymbolicDim)
    }


def largest_batch(model: ir.Model, tensors: Sequence[str], sample: Arrays, most: int) -> int:
    """How many samples to run at a time, so that no tensor takes more than a quarter of `GROUP_BYTES`: 1 to `most`."""
    sizes, wanted = axis_sizes(model, sample), set(tensors)
    values = [value for node in model.graph for value in node.outputs if value.name in wanted]
    largest = max((tensor_bytes(value, sizes) for value in values), default=1)
    return min(most, max(1, GROUP_BYTES // 4 // largest))


def tensor_bytes(value: ir.Value, sizes: Mapping[str, int]) -> int:
    """Bytes of a float tensor once every axis has a size.

    Raises:
        ExportError: as `shape_at`.
    """
    return 4 * math.prod(shape_at(value, sizes))
