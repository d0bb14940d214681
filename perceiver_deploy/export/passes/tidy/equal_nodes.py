"""Compute once what several nodes compute alike."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from perceiver_deploy.export.passes.base import GraphPass


class ShareEqualNodes(GraphPass):
    """Let one of several nodes of the same operator, inputs and attributes stand for all."""

    name = "equal nodes shared"
    recorded = False

    def run(self, model: ir.Model) -> int:
        """Returns how many nodes went."""
        before = len(model.graph)
        common.CommonSubexpressionEliminationPass()(model)
        return before - len(model.graph)

    def ensures(self, model: ir.Model) -> None:
        """No two nodes are equal, except those that hold graphs, and outputs of the graph."""
        again = model.clone()
        if self.run(again):
            raise ir.passes.PostconditionError("Equal nodes are left.")
