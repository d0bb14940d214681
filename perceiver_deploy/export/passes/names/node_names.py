"""Name nodes after the module they come from, so that profilers and error messages speak the model's language."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.passes.base import GraphPass


class NameNodes(GraphPass):
    """Name each node `MODULE/OPERATOR`, numbered from the second on (`encoder.self_attends.0.query/MatMul_2`)."""

    name = "nodes named"
    recorded = False

    def run(self, model: ir.Model) -> int:
        """Returns how many nodes came from a module."""
        seen: Counter[str] = Counter()
        named = 0
        for node in model.graph.all_nodes():
            module = module_of(node)
            named += bool(module)
            name = f"{module or 'graph'}/{node.op_type}"
            seen[name] += 1
            node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        return named

    def ensures(self, model: ir.Model) -> None:
        """Names are unique."""
        names = Counter(node.name for node in model.graph.all_nodes())
        if shared := [name for name, count in names.items() if not name or count > 1]:
            raise ir.passes.PostconditionError(f"Several nodes are called {shared}, or have no name.")
