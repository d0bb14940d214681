"""Small graphs for tests of graph passes, and how often a pass fires on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.passes.base import GraphPass
from perceiver_deploy.export.passes.driver import run_pass

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def fired(graph_pass: GraphPass, model: ir.Model) -> int:
    """Run a pass as the driver does, with what it requires and ensures; returns how often it fired."""
    return sum(run_pass(model, graph_pass).values())


def value(name: str, *shape: Any, type: ir.TensorType = FLOAT) -> ir.Value:
    """A value, of float32 unless said otherwise."""
    return ir.Value(name=name, shape=ir.Shape(shape), type=type)


def weight(name: str, array: Any, dtype: Any = np.float32) -> ir.Value:
    """An initialiser."""
    tensor = ir.tensor(np.asarray(array, dtype), name=name)
    return ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)


def node(op_type: str, inputs: Sequence[Any], output: ir.Value, name: str | None = None, **attributes: Any) -> ir.Node:
    """A node of one output."""
    return ir.node(op_type, inputs, attributes or None, outputs=[output], name=name)


def model(
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    nodes: Sequence[ir.Node],
    initializers: Sequence[ir.Value] = (),
) -> ir.Model:
    """A model of opset 20."""
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=initializers, opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10)


def operators(model: ir.Model) -> list[str]:
    """Operators of the main graph, in its order."""
    return [node.op_type for node in model.graph]
