"""Compute what is equal for all samples of a batch once, not for each sample."""

from __future__ import annotations

import onnx_ir as ir

from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.graph.values import constant_array
from perceiver_deploy.export.passes.base import GraphPass
from perceiver_deploy.export.passes.forms import require_shapes


class ShareOverBatch(GraphPass):
    """Take latents and queries, and what is computed of them alone, out of the batch.

    The model repeats them over the batch by Expand; MatMul and Add repeat them where they meet the data.
    """

    name = "shared over the batch"

    def requires(self, model: ir.Model) -> None:
        """Types and shapes, with the batch first."""
        require_shapes(model)

    def run(self, model: ir.Model) -> int:
        """Returns how many Expand nodes lost readers."""
        shared = 0
        for node in list(model.graph):
            if found := _broadcasting_readers(node):
                source = _with_batch_one(node)
                for reader, _ in found:
                    reader.replace_input_with(reader.inputs.index(node.outputs[0]), source)
                for _, taken in found:
                    for other in taken:
                        _set_batch_one(other)
                shared += 1
        return shared

    def ensures(self, model: ir.Model) -> None:
        """Only readers that do not broadcast read the Expand."""
        for node in model.graph:
            if readers := _broadcasting_readers(node):
                names = [reader.name for reader, _ in readers]
                raise ir.passes.PostconditionError(f"{names} read {node.name} and would do without it.")


def _broadcasting_readers(node: ir.Node) -> list[tuple[ir.Node, list[ir.Node]]]:
    """Readers of an Expand over the batch that do without it, each with the nodes whose results get batch 1."""
    if node.op_type != "Expand" or not _repeats_over_batch(node):
        return []
    inside = _computed_of(node)
    return [(use.node, taken) for use in node.outputs[0].uses() if (taken := _taken(use.node, inside)) is not None]


def _repeats_over_batch(node: ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or result.shape is None or isinstance(result.shape[0], int):
        return False
    missing = len(result.shape) - len(source.shape)
    return list(result.shape[1:]) == list(source.shape[1 - missing :]) and (missing == 1 or source.shape[0] == 1)


def _computed_of(expand: ir.Node) -> set[ir.Value]:
    """The result of an Expand, and everything computed of it and weights alone."""
    inside = {expand.outputs[0]}
    for node in expand.graph or ():
        if _is_inside(node, inside):
            inside.add(node.outputs[0])
    return inside


def _taken(node: ir.Node, inside: set[ir.Value]) -> list[ir.Node] | None:
    """The nodes, from a reader on, whose results get batch 1; None where a reader of one needs the whole batch."""
    if not _is_inside(node, inside):
        return [] if _broadcasts(node, inside) else None
    nodes = [node]
    if node.outputs[0].is_graph_output():
        return None
    for use in node.outputs[0].uses():
        taken = _taken(use.node, inside)
        if taken is None:
            return None
        nodes += taken
    return nodes


def _is_inside(node: ir.Node, inside: set[ir.Value]) -> bool:
    """Whether a node treats each sample of a value from inside by itself, with nothing but weights."""
    if not node.inputs or node.inputs[0] not in inside:
        return False
    if node.op_type == "Reshape":
        return _splits_heads(node)
    weights = [constant_array(value) for value in node.inputs[1:] if value is not None]
    if any(weight is None for weight in weights):
        return False
    match node.op_type:
        case "LayerNormalization" | "Pad":
            return True
        case "MatMul" | "Add" | "Mul":
            return weights[0] is not None and weights[0].ndim <= 2
        case "Unsqueeze":
            return weights[0] is not None and 0 not in weights[0]
        case "Transpose":
            return tuple(node.attributes.get_ints("perm", ()))[:1] == (0,)
    return False


def _splits_heads(node: ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0].shape
    if source is None or source.shape is None or result is None or len(source.shape) != 3 or len(result) != 4:
        return False
    return list(source.shape[:2]) == list(result[:2]) and all(isinstance(size, int) for size in result[2:])


def _broadcasts(node: ir.Node, inside: set[ir.Value]) -> bool:
    """Whether the other operand has the batch, so that the one from inside may have batch 1."""
    result = node.outputs[0].shape
    if node.op_type not in ("MatMul", "Add") or result is None:
        return False
    others = [value.shape for value in node.inputs if value is not None and value not in inside]
    return len(others) == 1 and others[0] is not None and len(others[0]) == len(result) and others[0][0] == result[0]


def _with_batch_one(expand: ir.Node) -> ir.Value:
    source, repeated = expand.inputs[0], expand.outputs[0]
    assert source is not None
    assert source.shape is not None
    assert repeated.shape is not None
    if len(source.shape) == len(repeated.shape):
        return source
    tape = Tape(expand, module_of(expand))
    return tape.op("Unsqueeze", [source, tape.integers([0])], [1, *repeated.shape[1:]])


def _set_batch_one(node: ir.Node) -> None:
    result = node.outputs[0]
    assert result.shape is not None
    result.shape = ir.Shape([1, *result.shape[1:]])
    if node.op_type == "Reshape":
        heads = [size for size in result.shape[2:] if isinstance(size, int)]
        node.replace_input_with(1, Tape(node, module_of(node)).integers([1, -1, *heads]))
