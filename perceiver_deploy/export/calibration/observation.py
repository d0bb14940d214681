"""Ranges of a graph's tensors on data: the graph is run in parts, each with what is looked at as its outputs."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import ExportError, InputError
from perceiver_deploy.export.calibration.histogram import Histogram
from perceiver_deploy.export.calibration.partial_results import PartialResults, Statistic
from perceiver_deploy.export.calibration.segments import Segments
from perceiver_deploy.export.graph.files import copy_model
from perceiver_deploy.export.graph.flops import shape_at
from perceiver_deploy.progress import track

GROUP_BYTES = 512 << 20
"""What the tensors shown by one part may take, unless one alone takes more."""


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

    Each batch runs through the graph once, in parts that show at most `GROUP_BYTES` of tensors. No batch may be
    larger than the first.

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
        segments = Segments(model, _sizes(model, statistics, first), GROUP_BYTES, Path(folder))
        remaining = max(count - done, 0) * len(segments)
        for number, found, ends in track(_found(segments, batches, done), "Calibrating", remaining):
            for name, array in found.items():
                _add(statistics[name], name, array)
            if ends:
                kept.save(statistics, number)
    kept.remove()


def _found(
    segments: Segments, batches: Callable[[], Iterable[Arrays]], done: int
) -> Iterator[tuple[int, Arrays, bool]]:
    """For each batch after the first `done`: its number, what each part shows, and whether that was its last one."""
    for number, batch in enumerate(batches(), 1):
        if number > done:
            for part, found in enumerate(segments.run(batch), 1):
                yield number, found, part == len(segments)


def _add(statistic: Statistic, name: str, array: NDArray[Any]) -> None:
    try:
        statistic.add(array)
    except InputError as error:
        raise InputError(
            f"Tensor {name} has no range: {error} on the calibration data. Check the data, and that the model gives "
            "finite outputs for them in fp32."
        ) from None


def _sizes(model: ir.Model, tensors: Iterable[str], batch: Arrays) -> dict[str, int]:
    """Bytes of each tensor in a batch."""
    values = {value.name: value for value in model.graph.inputs}
    values |= {value.name: value for node in model.graph for value in node.outputs}
    sizes = graph_axis_sizes(model, batch)
    for name in tensors:
        if name not in values:
            raise ExportError(f"The graph has no tensor {name!r} to observe. Calibrate on the graph it was named in.")
    return {name: tensor_bytes(values[name], sizes) for name in tensors}


def graph_axis_sizes(model: ir.Model, batch: Arrays) -> dict[str, int]:
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
    sizes, wanted = graph_axis_sizes(model, sample), set(tensors)
    values = [value for node in model.graph for value in node.outputs if value.name in wanted]
    largest = max((tensor_bytes(value, sizes) for value in values), default=1)
    return min(most, max(1, GROUP_BYTES // 4 // largest))


def tensor_bytes(value: ir.Value, sizes: Mapping[str, int]) -> int:
    """Bytes of a float tensor once every axis has a size.

    Raises:
        ExportError: as `shape_at`.
    """
    return 4 * math.prod(shape_at(value, sizes))
