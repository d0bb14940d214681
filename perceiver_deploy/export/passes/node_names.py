"""Name nodes after the module they come from, so that profilers and error messages speak the model's language."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from perceiver_deploy.export.graph.origin import module_of


def name_nodes(model: ir.Model) -> int:
    """Name each node `MODULE/OPERATOR`, numbered from the second on (`encoder.self_attends.0.query/MatMul_2`).

    Requires: the exporter's metadata on nodes. Ensures: names are unique. Returns how many came from a module.
    """
    seen: Counter[str] = Counter()
    named = 0
    for node in model.graph.all_nodes():
        module = module_of(node)
        named += bool(module)
        name = f"{module or 'graph'}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
    return named
