"""Compute what does not depend on the inputs."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer

from perceiver_deploy.export.passes.base import GraphPass


class FoldConstants(GraphPass):
    """Inline functions, fold what is constant and apply onnxscript's rules."""

    name = "nodes folded"
    recorded = False

    def run(self, model: ir.Model) -> int:
        """Returns how many nodes went."""
        before = set(model.graph.all_nodes())
        optimizer.optimize_ir(model)
        return len(before - set(model.graph.all_nodes()))

    def ensures(self, model: ir.Model) -> None:
        """No function is left, and constants are initialisers."""
        if model.functions:
            raise ir.passes.PostconditionError(f"Functions are left: {list(model.functions)}.")
        if any(node.op_type == "Constant" for node in model.graph.all_nodes()):
            raise ir.passes.PostconditionError("Nodes of type Constant are left.")
