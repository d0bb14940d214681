"""What a graph says, computed step by step: the reference that runtimes are held to.

Runtimes fuse: they multiply in INT8 what lies between Q/DQ pairs, keep in float32 what a graph casts to half and back,
reorder sums. Here nothing is fused. Q/DQ pairs are computed in float32 as ONNX defines them, and what has a half type
is computed in float32 and rounded after every node. onnxruntime does it with all its optimisations off; it computes
halves in float32 and leaves roundings out, so that such graphs are rewritten first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perceiver_deploy.errors import ExportError, requires
from perceiver_deploy.export.graph.files import external_above, write_graph
from perceiver_deploy.export.graph.tape import store
from perceiver_deploy.runtimes.checks.bounds import NUDGE

with requires("export", "Computing what a graph gives exactly"):
    import onnx_ir as ir
with requires("cpu", "Computing what a graph gives exactly"):
    import onnxruntime

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def exact_options() -> onnxruntime.SessionOptions:
    """Options with which onnxruntime computes node by node what a graph says."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return options


def state_roundings(model: ir.Model) -> int:
    """Compute in float32 what has a half type, in place, and round the result of every node to that type.

    Requires: types; no half values inside control flow. Ensures: half types only between the two casts of a rounding.
    Returns how many results are rounded.

    Raises:
        ExportError: a node whose result has a half type by an attribute other than a Cast's.
    """
    graph, rounded = model.graph, 0
    halves = {value for node in graph for value in node.outputs if value.dtype in _HALVES}
    for value in graph.initializers.values():
        if value.dtype in _HALVES:
            assert value.const_value is not None
            array = value.const_value.numpy().astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for value in halves:
        node, half = value.producer(), value.dtype
        assert node is not None
        assert half is not None
        if any(attribute.type == ir.AttributeType.TENSOR for attribute in node.attributes.values()):
            raise ExportError(f"{node.name} ({node.op_type}) has its type by an attribute, which is not known here.")
        inexact = node.op_type != "Cast"
        last = value
        if inexact:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            last = _cast(node, last, half)
        back = _cast(last.producer() or node, last, ir.DataType.FLOAT)
        for use in [use for use in value.uses() if use.node is not (last if inexact else back).producer()]:
            use.node.replace_input_with(use.idx, back)
        rounded += 1
    return rounded


def _cast(after: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Write a Cast of a value behind a node."""
    node = ir.node("Cast", [value], {"to": int(dtype)})
    node.outputs[0].shape, node.outputs[0].type = value.shape, ir.TensorType(dtype)
    assert after.graph is not None
    after.graph.insert_after(after, node)
    return node.outputs[0]


def nudge(model: ir.Model, seed: int) -> int:
    """Move what is rounded to INT8 a little up or down at each QuantizeLinear, in place, as float32 roundings do.

    Requires: stored scales. Ensures: scales of DequantizeLinear stay. Returns how many nodes were changed.
    """
    signs, changed = np.random.default_rng(seed), 0
    for node in [node for node in model.graph if node.op_type == "QuantizeLinear"]:
        scale = node.inputs[1]
        assert scale is not None
        assert scale.const_value is not None
        name = f"{node.name or changed}.nudged_scale"
        array = (scale.const_value.numpy() * np.float32(1 + signs.choice([-NUDGE, NUDGE]))).astype(np.float32)
        node.replace_input_with(1, store(model.graph, name, array))
        changed += 1
    return changed


def write_exact(source: Path, target: Path, seed: int | None = None) -> int:
    """Write the graph that onnxruntime computes exactly with `exact_options`, nudged where there is a seed.

    Weights stay in a file of their own where the source's are. Returns how many nodes were nudged.
    """
    model = ir.load(source)
    state_roundings(model)
    nudged = 0 if seed is None else nudge(model, seed)
    write_graph(model, target, external_above(source))
    return nudged
