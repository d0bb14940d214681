"""Call symbolic dimensions by the names of the signature's axes."""

from __future__ import annotations

import re

import onnx_ir as ir
import onnx_ir.passes.common as common

from perceiver_deploy.bundle.manifest import Signature
from perceiver_deploy.export.passes.base import GraphPass

_DIVISION = re.compile(r"\((\w+)//(\d+)\)")


class NameAxes(GraphPass):
    """Rename the exporter's symbols (`s43`) to axis names, inside expressions too, and infer sizes it left unknown."""

    name = "axes named"
    recorded = False

    def __init__(self, signature: Signature) -> None:
        self._specs = signature.stage.inputs

    def requires(self, model: ir.Model) -> None:
        """Inputs in the order of the signature."""
        found = [None if value.shape is None else len(value.shape) for value in model.graph.inputs]
        expected = [len(spec.shape) for spec in self._specs]
        if found != expected:
            raise ir.passes.PreconditionError(f"Inputs have the ranks {found}, those of the signature {expected}.")

    def run(self, model: ir.Model) -> int:
        """Returns how many symbols were renamed."""
        names: dict[str, str] = {}
        for size, axis in self._axes(model):
            if isinstance(size, ir.SymbolicDim) and isinstance(axis, str):
                names.setdefault(str(size.value), axis)

        def renamed(size: int | ir.SymbolicDim) -> int | str | None:
            if isinstance(size, int) or size.value is None:
                return size if isinstance(size, int) else None
            return _DIVISION.sub(r"\1/\2", re.sub(r"\w+", lambda match: names.get(match[0], match[0]), str(size.value)))

        for value in _values(model):
            if value.shape is not None:
                value.shape = ir.Shape([renamed(size) for size in value.shape])
        if any(value.shape is None or value.shape.has_unknown_dim() for value in _values(model)):
            # Two expressions of one size did not broadcast while they had different names.
            common.ShapeInferencePass()(model)
        return len(names)

    def ensures(self, model: ir.Model) -> None:
        """An input axis is called by its name; by another's if two share a symbol, a number if it was fixed to one.

        Whole divisions are written as in the signature (`samples/16`), so that a size has one name.
        """
        names = {axis for spec in self._specs for axis in spec.shape if isinstance(axis, str)}
        for size, axis in self._axes(model):
            if isinstance(size, ir.SymbolicDim) and isinstance(axis, str) and size.value not in names:
                raise ir.passes.PostconditionError(f"The axis {axis} of an input is called {size}.")
        for value in _values(model):
            if value.shape is not None and _DIVISION.search(str(value.shape)):
                raise ir.passes.PostconditionError(f"{value.name} has the shape {value.shape}.")

    def _axes(self, model: ir.Model) -> list[tuple[int | ir.SymbolicDim, int | str]]:
        """Sizes of the inputs, each with what the signature says."""
        pairs: list[tuple[int | ir.SymbolicDim, int | str]] = []
        for value, spec in zip(model.graph.inputs, self._specs, strict=True):
            assert value.shape is not None
            pairs += zip(value.shape, spec.shape, strict=True)
        return pairs


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(value for node in model.graph.all_nodes() for value in node.outputs)]
