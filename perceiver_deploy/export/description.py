"""What a manifest says of a graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_deploy.bundle.manifest import Axis
from perceiver_deploy.export.attention.fusibility import AttentionInfo, list_attentions
from perceiver_deploy.export.graph.costs import ModuleCost, cost_by_module
from perceiver_deploy.export.graph.operators import count_operators
from perceiver_deploy.export.options import REWRITES


@dataclass(frozen=True)
class GraphDescription:
    """Operators of a graph, and how often each rewrite fired.

    `flops`, in all and of each of `modules`, are counted with the axes at their `opt` sizes. `attentions` says which
    engines fuse them.
    """

    operators: dict[str, int]
    flops: int
    rewrites: dict[str, int]
    modules: list[ModuleCost]
    attentions: list[AttentionInfo]


def describe_graph(model: ir.Model, axes: Mapping[str, Axis]) -> GraphDescription:
    """Read all of it off a graph.

    Raises:
        ExportError: a shape is not known, or names an axis that is not given.
    """
    modules = cost_by_module(model, axes)
    return GraphDescription(
        operators=count_operators(model),
        flops=sum(cost.flops for cost in modules),
        rewrites=json.loads(model.metadata_props.get(REWRITES, "{}")),
        modules=modules,
        attentions=list_attentions(model, axes),
    )
