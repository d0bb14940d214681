"""Store weights the way MatMul reads them, instead of transposing them at every run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir


def transpose_weights(model: ir.Model) -> int:
    """Replace each `Transpose` of an initialiser by a transposed initialiser, named `NAME.transposed`.

    Requires: nothing. Ensures: no Transpose of an initialiser is left, unless it is an output; a weight used several
    times (weight-shared blocks) is stored once. Returns how many nodes were removed.
    """
    graph = model.graph
    removed = 0
    for node in list(graph):
        if (
            node.op_type != "Transpose"
            or node.outputs[0].is_graph_output()
            or not (source := node.inputs[0])
            or not source.is_initializer()
        ):
            continue
        perm = node.attributes.get_ints("perm", None)
        name = f"{source.name}.transposed" + ("" if perm in (None, (1, 0), [1, 0]) else "_" + "".join(map(str, perm)))
        weight = graph.initializers.get(name)
        if weight is None:
            assert source.const_value is not None
            tensor = _transposed(source.const_value, perm, name)
            weight = ir.Value(name=name, shape=tensor.shape, type=source.type, const_value=tensor)
            graph.register_initializer(weight)
        node.outputs[0].replace_all_uses_with(weight)
        graph.remove(node, safe=True)
        removed += 1
    return removed


def _transposed(source: ir.TensorProtocol, perm: Sequence[int] | None, name: str) -> ir.LazyTensor:
    """Transposed when it is read and not kept, so that a large model is not held twice."""

    def transpose() -> ir.TensorProtocol:
        return ir.Tensor(np.ascontiguousarray(np.transpose(source.numpy(), perm)), name=name)

    sizes = np.transpose(np.broadcast_to(0, source.shape.numpy()), perm).shape
    return ir.LazyTensor(transpose, source.dtype, ir.Shape(sizes), name=name)
