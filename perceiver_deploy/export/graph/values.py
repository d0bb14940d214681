"""Values of a graph: what is stored, and who reads it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

TRANSPARENT = ("QuantizeLinear", "DequantizeLinear", "Cast")
"""Operators that give the same value in another type."""


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """The content of an initialiser that the caller cannot replace; None for everything else."""
    if value is None or not value.is_initializer() or value.is_graph_input() or value.const_value is None:
        return None
    return value.const_value.numpy()


def float64(value: ir.Value | None) -> np.ndarray:
    """The content of an initialiser, where there is one."""
    array = constant_array(value)
    assert array is not None
    return array.astype(np.float64)


def sole_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, or what was quantised or cast of it, once; None where several do."""
    users = list(value.uses())
    if len(users) != 1 or value.is_graph_output():
        return None
    node = users[0].node
    return sole_user(node.outputs[0]) if node.op_type in TRANSPARENT else node
