"""Remove what changes nothing."""

from __future__ import annotations

import onnx_ir as ir


def remove_no_ops(model: ir.Model) -> int:
    """Let the readers of a Cast to the same type, or of a Reshape or Expand to the same shape, read its input.

    Requires: types and shapes. Ensures: outputs of the graph keep their names. Leaves nodes that nothing reads. Returns
    how many nodes were passed by.
    """
    removed = 0
    for node in model.graph:
        source, result = (node.inputs[0] if node.inputs else None), node.outputs[0]
        if source is not None and not result.is_graph_output() and _changes_nothing(node, source):
            result.replace_all_uses_with(source)
            removed += 1
    return removed


def _changes_nothing(node: ir.Node, source: ir.Value) -> bool:
    if node.op_type == "Cast":
        return source.dtype is not None and node.attributes.get_int("to") == source.dtype
    if node.op_type not in ("Reshape", "Expand") or source.shape is None or node.outputs[0].shape is None:
        return False
    if node.op_type == "Reshape" and len(source.shape) == len(node.outputs[0].shape) == 1:
        return True  # the elements are as many before as after
    known = all(isinstance(size, int) or size.value not in (None, "None") for size in source.shape)
    return known and list(source.shape) == list(node.outputs[0].shape)
