"""Trace a model to ONNX with every axis of its signature symbolic."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from perceiver_deploy.bundle.manifest import Axis, Signature, TensorSpec, evaluate_size
from perceiver_deploy.errors import ExportError
from perceiver_deploy.export.attention.translation import TRANSLATIONS
from perceiver_deploy.export.opset import set_opset
from perceiver_deploy.export.options import OPSET, REWRITES, GraphOptions
from perceiver_deploy.export.passes.driver import run_passes
from perceiver_deploy.export.passes.order import export_passes
from perceiver_deploy.progress import only_errors

_TRACED_BATCH = 2
_NOISY = "torch.onnx._internal.exporter._registration"


def trace_model(model: nn.Module, signature: Signature, options: GraphOptions) -> ir.Model:
    """Export `model` (in eval mode) to an optimised ONNX model whose axes carry the signature's names.

    Its metadata has the counts of `passes.driver.run_passes` under `REWRITES`.

    Raises:
        ExportError: the model cannot be traced, a declared axis was specialised to a number, or an operator cannot be
            expressed in the opset.
    """
    inputs = {spec.name: _example(spec, signature.axes) for spec in signature.stage.inputs}
    dynamic = {
        spec.name: {index: torch.export.Dim.DYNAMIC for index, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in signature.stage.inputs
    }
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                model,
                kwargs=inputs,
                dynamic_shapes=dynamic,
                input_names=[spec.name for spec in signature.stage.inputs],
                output_names=[spec.name for spec in signature.stage.outputs],
                opset_version=OPSET,
                dynamo=True,
                optimize=False,
                verbose=False,
                custom_translation_table=TRANSLATIONS,
            )
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise ExportError(
            f"The model could not be traced with its axes dynamic: {_cause(error)}. "
            "Look for code that branches on a size or turns one into a Python number."
        ) from error
    assert program is not None
    assert program.exported_program is not None
    exported = program.model
    _check_bounds(exported, program.exported_program.range_constraints, signature)
    exported.metadata_props[REWRITES] = json.dumps(run_passes(exported, export_passes(signature, options)))
    set_opset(exported, options.opset)
    _check_axes(exported, signature)
    return exported


def _example(spec: TensorSpec, axes: dict[str, Axis]) -> torch.Tensor:
    """An input at sizes that differ between axes where the axes allow, so that no two are taken for the same."""
    sizes = {name: _traced_size(axis, offset) for offset, (name, axis) in enumerate(axes.items())}
    sizes["batch"] = _TRACED_BATCH
    shape = [evaluate_size(size, sizes) for size in spec.shape]
    if spec.dtype == "float32":
        return torch.zeros(shape)
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _traced_size(axis: Axis, offset: int) -> int:
    """A size well above the least: where an inner size comes out as 1 while tracing, it is fixed to 1.

    Nothing is computed while tracing, so a large size costs nothing.
    """
    size = max(axis.opt, 4 * axis.min) + axis.multiple_of * (offset + 2)
    size = -(-size // axis.multiple_of) * axis.multiple_of
    return size if axis.max is None else max(axis.min, min(size, axis.max - axis.multiple_of * offset))


def _check_bounds(model: ir.Model, ranges: Mapping[Any, Any], signature: Signature) -> None:
    """Refuse a graph that holds for some sizes of an axis only: a branch on the size was traced one way.

    The tracer takes for granted that no inner size is 1. Where `min` gives 1 inside, about twice as much gives 2, so
    its lower bound may be as high as that; the graph is right below, which the gate tests at `min`.
    """
    bounds = {str(symbol): (interval.lower, interval.upper) for symbol, interval in ranges.items()}
    for value, spec in zip(model.graph.inputs, signature.stage.inputs, strict=True):
        assert value.shape is not None
        for size, name in zip(value.shape, spec.shape, strict=True):
            if name not in signature.axes or str(size) not in bounds:
                continue
            axis, (lower, upper) = signature.axes[name], bounds[str(size)]
            if lower > max(2, 2 * axis.min) or upper < (axis.max or sys.maxsize):
                raise ExportError(
                    f"The traced graph holds for {name} of {spec.name} from {lower} to {upper} only, expected "
                    f"{axis.min} to {axis.max or 'any size'}. Look for code that branches on a size."
                )


def _check_axes(model: ir.Model, signature: Signature) -> None:
    for value, spec in zip(
        [*model.graph.inputs, *model.graph.outputs], [*signature.stage.inputs, *signature.stage.outputs], strict=True
    ):
        assert value.shape is not None
        found = tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)
        if value.name != spec.name or found != spec.shape:
            raise ExportError(
                f"{spec.name} was exported as {value.name} with shape {list(found)}, expected {list(spec.shape)}: "
                "an axis that should be free was fixed while tracing."
            )


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return " ".join(line.strip(" -") for line in lines[:2]).rstrip(".") if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress prints and warnings about its own internals away from the user."""
    with only_errors(_NOISY), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
