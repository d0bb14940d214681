"""Half precision: a graph that computes in fp16 or bf16, with float32 inputs and outputs.

The types are in the graph, so an engine that takes them as they are (TensorRT) and one that chooses its own precision
(OpenVINO) read the same file. Weights are stored in half.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from perceiver_deploy.errors import ExportError
from perceiver_deploy.export.half.rules import (
    PRODUCTS,
    Limits,
    float_operands,
    is_flexible,
    is_float,
    is_observed,
    reads_shape_only,
    rules_for,
)

HalfPrecision = Literal["fp16", "bf16"]
DTYPES: dict[HalfPrecision, ir.DataType] = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}

_REQUESTED = "request"
_BETWEEN = "moved: between nodes in float32"


def tensors_to_observe(model: ir.Model, precision: HalfPrecision) -> list[str]:
    """Names of the tensors whose ranges `convert_to_half` must know: none for bf16, whose range is float32's."""
    if precision == "bf16":
        return []
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return [str(value.name) for value in values if is_observed(value)]


def convert_to_half(
    model: ir.Model, precision: HalfPrecision, ranges: Limits, keep: Collection[str] = ()
) -> dict[str, str]:
    """Rewrite a float32 graph in place; returns the nodes that stay in float32, with the reason.

    They are those named in `keep` and those that `half_rules` keep.

    Only float32 changes: integers, shapes and float64 stay. A tensor is cast at most once, where it passes from the
    nodes of one precision to those of the other, and never to half on its way from float32 to float32 if nothing is
    computed there.

    Raises:
        ExportError: a tensor of `tensors_to_observe` has no range, the graph has control flow or types that are not
            known, or no product of matrices would be in half.
    """
    dtype = DTYPES[precision]
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _require_convertible(model)
    if absent := [name for name in tensors_to_observe(model, precision) if name not in ranges]:
        raise ExportError(f"Tensor {absent[0]} has no range. Observe every tensor of the graph that fp16 is made from.")
    kept = _kept_nodes(model, dtype, ranges if precision == "fp16" else None, keep)
    if not any(node.op_type in PRODUCTS and is_float(node.outputs[0]) and node not in kept for node in model.graph):
        reasons = sorted({reason for node, reason in kept.items() if node.op_type in PRODUCTS}) or ["there is none"]
        raise ExportError(
            f"No product of matrices can be computed in {precision}: {'; '.join(reasons[:3])}. Keep this model in fp32."
        )
    _Conversion(model.graph, dtype, precision, kept).run()
    common.RemoveUnusedNodesPass()(model)
    return {str(node.name): reason for node, reason in kept.items()}


def _require_convertible(model: ir.Model) -> None:
    subgraphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    for node in model.graph:
        if any(attribute.type in subgraphs for attribute in node.attributes.values()):
            raise ExportError(
                f"{node.name} ({node.op_type}) is control flow, whose precision cannot be changed. "
                "Export the checkpoint again with --attention portable; loops over rows are for fp32 and int8."
            )
        for value in node.outputs:
            if value.dtype is None and value.uses():
                raise ExportError(f"The type of {value.name} is unknown. Export the graph again, or infer its shapes.")


def _kept_nodes(
    model: ir.Model, dtype: ir.DataType, ranges: Limits | None, keep: Collection[str]
) -> dict[ir.Node, str]:
    """Nodes that stay in float32 on request or by a rule, and those that only move values between such nodes."""
    rules = rules_for(model, dtype, ranges)
    nodes = [node for node in model.graph if _is_typed(node)]
    kept = {node: _REQUESTED for node in nodes if node.name in keep}
    for node in nodes:
        if (reason := next(filter(None, (rule(node) for rule in rules)), None)) is not None:
            kept[node] = reason
    return kept | _kept_between(nodes, kept)


def _is_typed(node: ir.Node) -> bool:
    """Whether a node computes with float32."""
    return not reads_shape_only(node) and bool(float_operands(node) or any(map(is_float, node.outputs)))


def _kept_between(nodes: list[ir.Node], kept: Mapping[ir.Node, str]) -> dict[ir.Node, str]:
    """Nodes that compute nothing take the precision that needs fewer casts and loses nothing.

    From float32 to float32 that is float32. Several tensors from float32 are joined before they are cast.
    """
    wanted: set[ir.Node] = set()  # whose result is read in float32
    for node in reversed(nodes):
        readers = {use.node for value in node.outputs for use in value.uses()}
        if is_flexible(node) and any(reader in kept or reader in wanted for reader in readers):
            wanted.add(node)
    in_float32 = set(kept)
    for node in nodes:
        if node in kept or not is_flexible(node):
            continue
        sources = [value for value in float_operands(node) if not value.is_initializer()]
        from_float32 = [value.is_graph_input() or value.producer() in in_float32 for value in sources]
        joined = len(sources) > 1 and all(from_float32)
        if joined or (node in wanted and (any(from_float32) or not sources)):
            in_float32.add(node)
    return {node: _BETWEEN for node in nodes if node in in_float32 and node not in kept}


@dataclass
class _Conversion:
    """Gives each node the operands of its precision. `versions` are values in the precision they are not made in."""

    graph: ir.Graph
    dtype: ir.DataType
    suffix: str
    kept: Mapping[ir.Node, str]
    versions: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)

    def run(self) -> None:
        for node in [node for node in self.graph if not reads_shape_only(node)]:
            target = ir.DataType.FLOAT if node in self.kept else self.dtype
            for index, value in enumerate(node.inputs):
                if value is not None and value.dtype in (ir.DataType.FLOAT, self.dtype):
                    node.replace_input_with(index, self._in(value, target))
            for value in node.outputs:
                if is_float(value):
                    value.dtype = target
                    if node.op_type == "Cast":
                        node.attributes["to"] = ir.AttrInt64("to", target)
        for index, value in enumerate(self.graph.outputs):
            if value.dtype == self.dtype:
                self._return_float32(index, value)

    def _in(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if value.dtype == dtype:
            return value
        key = (value, dtype)
        if key not in self.versions:
            self.versions[key] = self._stored(value) if value.is_initializer() else self._cast(value, dtype)
        return self.versions[key]

    def _stored(self, value: ir.Value) -> ir.Value:
        """An initialiser in half, rounded when it is read and not kept, so that a large model is not held twice."""
        source, name, shape = value.const_value, f"{value.name}.{self.suffix}", value.shape
        assert source is not None
        assert shape is not None

        def rounded() -> ir.TensorProtocol:
            return ir.tensor(np.asarray(source.numpy().astype(self.dtype.numpy())), name=name)

        tensor = ir.LazyTensor(rounded, self.dtype, shape, name=name)
        stored = ir.Value(name=name, shape=shape, type=ir.TensorType(self.dtype), const_value=tensor)
        self.graph.register_initializer(stored)
        return stored

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        producer = value.producer()
        suffix = "fp32" if dtype == ir.DataType.FLOAT else self.suffix
        node = ir.node("Cast", [value], {"to": dtype}, name=f"{self._place(value)}.{suffix}")
        cast = node.outputs[0]
        cast.name, cast.shape, cast.type = f"{value.name}.{suffix}", value.shape, ir.TensorType(dtype)
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        return cast

    @staticmethod
    def _place(value: ir.Value) -> str:
        """Where a value is made, as node names have it: `MODULE/OPERATOR`, with a number where there are several."""
        node = value.producer()
        if node is None:
            return f"graph/{value.name}"
        return str(node.name) if len(node.outputs) == 1 else f"{node.name}.{value.index()}"

    def _return_float32(self, index: int, value: ir.Value) -> None:
        """Let an output of the graph be float32 under its name."""
        name = value.name
        result = self._in(value, ir.DataType.FLOAT)
        value.name = f"{name}.{self.suffix}"
        result.name = name
        self.graph.outputs[index] = result
