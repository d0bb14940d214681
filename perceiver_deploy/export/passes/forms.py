"""Forms of a graph that passes require."""

from __future__ import annotations

import onnx_ir as ir

from perceiver_deploy.export.graph.values import constant_array


def require_shapes(model: ir.Model) -> None:
    """Raise a PreconditionError unless every value of the main graph has a type and a shape."""
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    if unknown := [value.name for value in values if value.dtype is None or value.shape is None]:
        raise ir.passes.PreconditionError(f"Type or shape of {', '.join(map(str, unknown))} is not known.")


def require_weights_as_read(model: ir.Model) -> None:
    """Raise a PreconditionError if a MatMul reads a stored weight through a Transpose."""
    for node in model.graph:
        read = [value.producer() for value in node.inputs if value is not None] if node.op_type == "MatMul" else []
        for source in read:
            if source is not None and source.op_type == "Transpose" and constant_array(source.inputs[0]) is not None:
                raise ir.passes.PreconditionError(f"{node.name} reads a weight through {source.name}.")
