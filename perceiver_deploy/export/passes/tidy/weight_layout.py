"""Store weights the way MatMul reads them, instead of transposing them at every run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.passes.base import GraphPass


class TransposeWeights(GraphPass):
    """Replace each `Transpose` of an initialiser by a transposed initialiser, named `NAME.transposed`.

    A weight that is used several times (weight-shared blocks) is stored once.
    """

    name = "transposed weights"

    def run(self, model: ir.Model) -> int:
        """Returns how many Transpose nodes were replaced."""
        graph = model.graph
        replaced = 0
        for node in graph:
            source = _transposed_weight(node)
            if source is None:
                continue
            perm = node.attributes.get_ints("perm", None)
            suffix = "" if perm in (None, (1, 0), [1, 0]) else "_" + "".join(map(str, perm))
            name = f"{source.name}.transposed{suffix}"
            weight = graph.initializers.get(name)
            if weight is None:
                assert source.const_value is not None
                tensor = _transposed(source.const_value, perm, name)
                weight = ir.Value(name=name, shape=tensor.shape, type=source.type, const_value=tensor)
                graph.register_initializer(weight)
            node.outputs[0].replace_all_uses_with(weight)
            replaced += 1
        return replaced

    def ensures(self, model: ir.Model) -> None:
        """No Transpose of an initialiser is left, unless it is an output."""
        if left := [node.name for node in model.graph if _transposed_weight(node) is not None]:
            raise ir.passes.PostconditionError(f"Weights are transposed at every run by {left}.")


def _transposed_weight(node: ir.Node) -> ir.Value | None:
    """The initialiser that a node transposes; None of any other node, and of an output of the graph."""
    if node.op_type != "Transpose" or node.outputs[0].is_graph_output():
        return None
    source = node.inputs[0]
    return source if source is not None and source.is_initializer() else None


def _transposed(source: ir.TensorProtocol, perm: Sequence[int] | None, name: str) -> ir.LazyTensor:
    """Transposed when it is read and not kept, so that a large model is not held twice."""

    def transpose() -> ir.TensorProtocol:
        return ir.Tensor(np.ascontiguousarray(np.transpose(source.numpy(), perm)), name=name)

    sizes = np.transpose(np.broadcast_to(0, source.shape.numpy()), perm).shape
    return ir.LazyTensor(transpose, source.dtype, ir.Shape(sizes), name=name)
