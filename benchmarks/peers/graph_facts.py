"""Facts about an ONNX file, found in a process of its own: a large file would stay in the memory of the caller.

python -m peers.graph_facts FILE [SIZES]
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.graph.flops import repeated_nodes, shape_at
from perceiver_deploy.export.graph.operators import count_operators


def main() -> None:
    """Print nodes, opset and bytes (files of weights included), and matrix products at the sizes, given as JSON."""
    file = Path(sys.argv[1])
    model = ir.load(file)
    facts: dict[str, Any] = {
        "nodes": sum(count_operators(model).values()),
        "opset": model.opset_imports[""],
        "bytes": sum(path.stat().st_size for path in {file, *_weight_files(model)}),
    }
    if len(sys.argv) > 2:
        counts = count_gemms(model, json.loads(sys.argv[2]))
        facts["gemms"] = [{"batch": b, "m": m, "k": k, "n": n, "count": c} for (b, m, k, n), c in counts.items()]
    print(json.dumps(facts))


def _weight_files(model: ir.Model) -> set[Path]:
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return {Path(tensor.path) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}


def count_gemms(model: ir.Model, sizes: Mapping[str, int]) -> Counter[tuple[int, int, int, int]]:
    """How often the graph multiplies [batch, m, k] by [batch, k, n]; a right side without batch makes its rows m."""
    counts: Counter[tuple[int, int, int, int]] = Counter()
    for node, times in repeated_nodes(model.graph, sizes):
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        left, right = (shape_at(value, sizes) for value in node.inputs[:2] if value is not None)
        if node.op_type == "Gemm":
            left = left[::-1] if node.attributes.get_int("transA", 0) else left
            right = right[::-1] if node.attributes.get_int("transB", 0) else right
        m, (k, n) = left[-2], right[-2:]
        batch = int(np.prod(np.broadcast_shapes(left[:-2], right[:-2])))
        if len(right) == 2:
            batch, m = 1, batch * m
        counts[batch, m, k, n] += times
    return counts


if __name__ == "__main__":
    main()
