"""Call symbolic dimensions by the names of the signature's axes."""

from __future__ import annotations

import re

import onnx_ir as ir

from perceiver_deploy.manifest import Signature


def name_axes(model: ir.Model, signature: Signature) -> int:
    """Rename the exporter's symbols (`s43`) to axis names, inside expressions too.

    Requires: inputs and outputs in the order of the signature. Ensures: an input axis keeps its symbol only if two
    axes share one or it was fixed to a number (which the exporter's caller checks). Returns how many were renamed.
    """
    names: dict[str, str] = {}
    for value, spec in zip(model.graph.inputs, signature.stage.inputs, strict=True):
        assert value.shape is not None
        for size, axis in zip(value.shape, spec.shape, strict=True):
            if isinstance(size, ir.SymbolicDim) and isinstance(axis, str):
                names.setdefault(str(size.value), axis)

    def renamed(shape: ir.Shape) -> ir.Shape:
        return ir.Shape(
            [
                size if isinstance(size, int) else re.sub(r"\w+", lambda m: names.get(m[0], m[0]), str(size))
                for size in shape
            ]
        )

    for value in _values(model):
        if value.shape is not None:
            value.shape = renamed(value.shape)
    return len(names)


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(value for node in model.graph.all_nodes() for value in node.outputs)]
