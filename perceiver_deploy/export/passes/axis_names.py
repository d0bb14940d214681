"""Call symbolic dimensions by the names of the signature's axes."""

from __future__ import annotations

import re

import onnx_ir as ir
import onnx_ir.passes.common as common

from perceiver_deploy.bundle.manifest import Signature

_DIVISION = re.compile(r"\((\w+)//(\d+)\)")


def name_axes(model: ir.Model, signature: Signature) -> int:
    """Rename the exporter's symbols (`s43`) to axis names, inside expressions too, and infer sizes it left unknown.

    Requires: inputs and outputs in the order of the signature. Ensures: an input axis keeps its symbol only if two
    axes share one or it was fixed to a number (which the exporter's caller checks); whole divisions are written as
    in the signature (`samples/16`), so that a size has one name. Returns how many were renamed.
    """
    names: dict[str, str] = {}
    for value, spec in zip(model.graph.inputs, signature.stage.inputs, strict=True):
        assert value.shape is not None
        for size, axis in zip(value.shape, spec.shape, strict=True):
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


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(value for node in model.graph.all_nodes() for value in node.outputs)]
