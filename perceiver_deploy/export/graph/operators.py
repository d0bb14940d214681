"""What a graph consists of."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir


def count_operators(model: ir.Model) -> dict[str, int]:
    """Number of nodes by operator, most frequent first."""
    counts = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in model.graph.all_nodes())
    return dict(counts.most_common())


def count_parameters(model: ir.Model) -> int:
    """Number of elements of all initialisers."""
    return sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value is not None)
