"""Run graph passes, and remove what nothing reads any more."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir
import onnx_ir.passes.common as common

from perceiver_deploy.export.passes.base import GraphPass, PassByWay

CHECK = False
"""Whether what a pass requires and ensures is checked, which tests do; it can take as long as the passes."""


def run_passes(model: ir.Model, passes: Iterable[GraphPass]) -> dict[str, int]:
    """Run passes in this order, in place. Returns how often each one that is recorded fired."""
    counts: dict[str, int] = {}
    for graph_pass in passes:
        fired = run_pass(model, graph_pass)
        if graph_pass.recorded:
            counts |= fired
    return counts


def run_pass(model: ir.Model, graph_pass: GraphPass) -> dict[str, int]:
    """Run one pass, in place, and sweep where it fired. Returns how often, by the names that a bundle has for it.

    Raises:
        InvariantError: with `CHECK`, the graph is not as the pass requires, or was not left as it ensures.
    """
    before = _interface(model)
    if CHECK:
        graph_pass.requires(model)
    if isinstance(graph_pass, PassByWay):
        fired = graph_pass.run_by_way(model)
    else:
        fired = {graph_pass.name: graph_pass.run(model)}
    if any(fired.values()):
        common.RemoveUnusedNodesPass()(model)
    if CHECK:
        graph_pass.ensures(model)
        if (after := _interface(model)) != before:
            raise ir.passes.PostconditionError(f"{graph_pass.name}: inputs and outputs were {before}, are {after}.")
    return fired


def _interface(model: ir.Model) -> list[str | None]:
    return [value.name for value in [*model.graph.inputs, *model.graph.outputs]]
