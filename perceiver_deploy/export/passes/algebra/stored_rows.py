"""Compute while exporting what depends on learned tables alone: latents, queries and positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference import ops

from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.graph.values import constant_array, sole_user
from perceiver_deploy.export.passes.base import GraphPass
from perceiver_deploy.export.passes.forms import require_shapes, require_weights_as_read

_BY_ROW = ("LayerNormalization", "MatMul", "Gemm", "Add", "Mul")
_BY_LAYOUT = ("Unsqueeze", "Reshape", "Transpose", "Pad")
_SMALL = 1 << 20
"""A result that is larger than its table is stored up to so many elements (4 MiB in float32)."""


class StoreRows(GraphPass):
    """Norm and project a learned table before rows of it are picked, in float64, and store the result.

    No stored result is larger than its table, or than 4 MiB in float32.
    """

    name = "stored rows"

    def requires(self, model: ir.Model) -> None:
        """Types and shapes; weights as MatMul reads them."""
        require_shapes(model)
        require_weights_as_read(model)

    def run(self, model: ir.Model) -> int:
        """Returns how many results were stored."""
        stored, done = 0, set[ir.Node]()
        for node in list(model.graph):
            if node not in done and (found := _Storable.of(node, model.opset_imports[""])) is not None:
                found.store()
                done.update(found.nodes)
                stored += 1
        return stored

    def ensures(self, model: ir.Model) -> None:
        """Nothing is left that could be stored so."""
        for node in model.graph:
            if _Storable.of(node, model.opset_imports[""]) is not None:
                raise ir.passes.PostconditionError(f"What {node.name} computes of a table is not stored.")


@dataclass(frozen=True)
class _Storable:
    """Nodes one after the other that compute `result` of rows of a table, which `picks` pick or arrange."""

    nodes: list[ir.Node]
    picks: list[ir.Node]
    result: np.ndarray

    @classmethod
    def of(cls, node: ir.Node, opset: int) -> _Storable | None:
        """What can be stored from a node on; None where nothing can."""
        if not node.inputs or node.inputs[0] is None:
            return None
        picks = _picks(node.inputs[0])
        table = constant_array(picks[0].inputs[0] if picks else node.inputs[0])
        if table is None or not np.issubdtype(table.dtype, np.floating):
            return None
        nodes = _computed(node, by_row=bool(picks))
        result = table.astype(np.float64)
        for computed in nodes:
            result = _evaluate(computed, result, opset)
        return cls(nodes, picks, result) if nodes and result.size <= max(table.size, _SMALL) else None

    def store(self) -> None:
        """Let the readers of the last node read the stored result, or rows of it."""
        first, last = self.nodes[0], self.nodes[-1]
        tape = Tape(first, module_of(last))
        value = tape.weight("stored", self.result)
        for pick in self.picks:
            shape, inputs = pick.outputs[0].shape, [source for source in pick.inputs[1:] if source is not None]
            assert shape is not None
            if pick.op_type == "Reshape":
                target = constant_array(inputs[0])
                assert target is not None
                inputs[0] = tape.integers([*target[:-1].tolist(), self.result.shape[-1]])
            value = tape.op(pick.op_type, [value, *inputs], [*shape[:-1], self.result.shape[-1]], **_attributes(pick))
        last.outputs[0].replace_all_uses_with(value)


def _picks(value: ir.Value) -> list[ir.Node]:
    """The nodes that pick rows of a table or arrange them otherwise, first to last; empty where that is unclear."""
    nodes: list[ir.Node] = []
    while (node := value.producer()) is not None and _keeps_channels(node):
        nodes.insert(0, node)
        assert node.inputs[0] is not None
        value = node.inputs[0]
    return nodes


def _keeps_channels(node: ir.Node) -> bool:
    """Whether a node passes rows of channels on as they are. A Reshape must name the channels last."""
    source, result = node.inputs[0] if node.inputs else None, node.outputs[0].shape
    if source is None or source.shape is None or not len(source.shape) or not result:
        return False
    match node.op_type:
        case "Slice":
            axes = constant_array(node.inputs[3]) if len(node.inputs) > 3 else None
            return axes is not None and not {-1, len(source.shape) - 1} & set(axes.tolist())
        case "Gather":
            return node.attributes.get_int("axis", 0) == 0 and len(source.shape) > 1
        case "Unsqueeze":
            axes = constant_array(node.inputs[1])
            return axes is not None and not {-1, len(source.shape)} & set(axes.tolist())
        case "Reshape":
            target = constant_array(node.inputs[1])
            return target is not None and target[-1] == source.shape[-1]
    return False


def _computed(node: ir.Node | None, *, by_row: bool) -> list[ir.Node]:
    """The nodes from one on, each the only reader of the one before, that can be computed now (on each row alone)."""
    nodes: list[ir.Node] = []
    while node is not None and not node.outputs[0].is_graph_output() and _is_computable(node, any_layout=not by_row):
        nodes.append(node)
        node = sole_user(node.outputs[0])
        if node is not None and node.inputs[0] is not nodes[-1].outputs[0]:
            break
    return nodes


def _is_computable(node: ir.Node, *, any_layout: bool) -> bool:
    """Whether a node's other operands are weights, and it computes on each row alone, or `any_layout` is allowed."""
    if node.op_type not in (_BY_ROW + _BY_LAYOUT if any_layout else _BY_ROW) or len(node.outputs) != 1:
        return False
    others = [constant_array(value) for value in node.inputs[1:] if value is not None]
    by_row = {"Add": 1, "Mul": 1, "MatMul": 2}.get(node.op_type, 2)
    return all(other is not None and (any_layout or other.ndim <= by_row) for other in others)


def _evaluate(node: ir.Node, array: np.ndarray, opset: int) -> np.ndarray:
    """The result of a node in float64, its first operand being `array`."""
    others = [constant_array(value) for value in node.inputs[1:]]
    doubles = [x.astype(np.float64) if x is not None and np.issubdtype(x.dtype, np.floating) else x for x in others]
    result = ops.load_op("", node.op_type, opset).eval(array, *doubles, **_attributes(node))
    array = result[0] if isinstance(result, tuple) else result  # LayerNormalization has optional results too
    assert isinstance(array, np.ndarray)
    return array


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items()}
