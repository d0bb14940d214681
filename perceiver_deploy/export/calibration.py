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
from perceiver_deploy.progress import track

with requires("cpu", "Calibrating"):
    import onnxruntime

GROUP_BYTES = 512 << 20
"""What the tensors observed in one run may take beside what the graph takes, unless one alone takes more."""


def observe(
    graph: Path, tensors: Sequence[str], batches: Callable[[], Iterable[Arrays]], *, count: int = 0
) -> dict[str, Histogram]:
    """What each tensor of a float graph holds over all batches; each call of `batches` gives them from the first on.

    The graph is run once for each group of tensors that take at most `GROUP_BYTES` together. No batch may be larger
    than the first. `count`: number of batches, for the display of progress.

    Raises:
        InputError: a tensor holds values that are not finite, or there is no batch.
        ExportError: the graph has no such tensor, or its size is not known.
    """
    first = next(iter(batches()), None)
    if first is None:
        raise InputError("There is no calibration data. Give at least one batch.")
    histograms = {name: Histogram() for name in tensors}
    with tempfile.TemporaryDirectory() as folder:
        model = ir.load(copy_model(graph, Path(folder)))
        groups = _groups(model, tensors, first)
        for values in track(_observed(model, groups, batches, Path(folder)), "Calibrating", count * len(groups)):
            for name, array in values.items():
                try:
                    histograms[name].add(array)
                except InputError as error:
                    raise InputError(
                        f"Tensor {name} has no range: {error} on the calibration data. Check the data, and that the "
                        "model gives finite outputs for them in fp32."
                    ) from None
    return histograms


def _observed(
    model: ir.Model, groups: Sequence[list[ir.Value]], batches: Callable[[], Iterable[Arrays]], folder: Path
) -> Iterator[Arrays]:
    """Tensors by name, for each group and batch."""
    for group in groups:
        computed = [value for value in group if not value.is_graph_input()]
        run = _runner(model, computed, folder)
        for batch in batches():
            given = {str(value.name): batch[str(value.name)] for value in group if value.is_graph_input()}
            yield given | run(batch)


def _runner(model: ir.Model, outputs: Sequence[ir.Value], folder: Path) -> Callable[[Arrays], Arrays]:
    """Runs the graph for these outputs only."""
    if not outputs:
        return lambda batch: {}
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    path = folder / "observed.onnx"
    ir.save(model, path)  # external data stay in the file beside it
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken, names = [spec.name for spec in session.get_inputs()], [spec.name for spec in session.get_outputs()]

    def run(batch: Arrays) -> Arrays:
        found: list[NDArray[Any]] = session.run(names, {name: np.ascontiguousarray(batch[name]) for name in taken})
        return dict(zip(names, found, strict=True))

    return run


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


def tensor_bytes(value: ir.Value, sizes: Mapping[str, int]) -> int:
    """Bytes of a float tensor once every axis has a size.

    Raises:
        ExportError: as `shape_at`.
    """
    return 4 * math.prod(shape_at(value, sizes))
