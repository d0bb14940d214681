"""Store equal weights once."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from perceiver_deploy.export.passes.base import GraphPass

_MOST_ELEMENTS = 1024
"""Larger weights are equal only where the model shares them, and are one initialiser then."""


class ShareEqualInitializers(GraphPass):
    """Let one of several initialisers of the same type, shape and content, of at most 1024 elements, stand for all."""

    name = "duplicate initializers"

    def run(self, model: ir.Model) -> int:
        """Returns how many initialisers went."""
        before = len(model.graph.initializers)
        common.DeduplicateInitializersPass(_MOST_ELEMENTS)(model)
        return before - len(model.graph.initializers)

    def ensures(self, model: ir.Model) -> None:
        """No two such initialisers are equal."""
        seen: dict[object, str] = {}
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is None or tensor.size > _MOST_ELEMENTS or value.is_graph_input() or value.is_graph_output():
                continue
            content = tensor.dtype, tuple(tensor.shape), tensor.tobytes()
            if content in seen:
                raise ir.passes.PostconditionError(f"{seen[content]} and {name} are equal.")
            seen[content] = name
