"""Remove what changes nothing."""

from __future__ import annotations

import onnx_ir as ir

from perceiver_deploy.export.passes.base import GraphPass
from perceiver_deploy.export.passes.forms import require_shapes


class RemoveNoOps(GraphPass):
    """Let the readers of a Cast to the same type, or of a Reshape or Expand to the same shape, read its input."""

    name = "no-ops removed"

    def requires(self, model: ir.Model) -> None:
        """Types and shapes."""
        require_shapes(model)

    def run(self, model: ir.Model) -> int:
        """Returns how many nodes were passed by."""
        removed = 0
        for node in model.graph:
            if (source := _passed_on(node)) is not None:
                node.outputs[0].replace_all_uses_with(source)
                removed += 1
        return removed

    def ensures(self, model: ir.Model) -> None:
        """No such node is left, but for outputs of the graph."""
        if left := [node.name for node in model.graph if _passed_on(node) is not None]:
            raise ir.passes.PostconditionError(f"Nothing is changed by {left}.")


def _passed_on(node: ir.Node) -> ir.Value | None:
    """What a node passes on unchanged; None of one that changes it, and of an output of the graph."""
    source = node.inputs[0] if node.inputs else None
    unchanged = source is not None and not node.outputs[0].is_graph_output() and _changes_nothing(node, source)
    return source if unchanged else None


def _changes_nothing(node: ir.Node, source: ir.Value) -> bool:
    if node.op_type == "Cast":
        return source.dtype is not None and node.attributes.get_int("to") == source.dtype
    if node.op_type not in ("Reshape", "Expand") or source.shape is None or node.outputs[0].shape is None:
        return False
    if node.op_type == "Reshape" and len(source.shape) == len(node.outputs[0].shape) == 1:
        return True  # the elements are as many before as after
    known = all(isinstance(size, int) or size.value not in (None, "None") for size in source.shape)
    return known and list(source.shape) == list(node.outputs[0].shape)
