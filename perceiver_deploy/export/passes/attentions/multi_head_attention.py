"""Write attentions as onnxruntime's own operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from perceiver_deploy.export.attention.match import Attention, find_attentions
from perceiver_deploy.export.passes.attentions.operands import Operands, find_operands, write_operator
from perceiver_deploy.export.passes.base import GraphPass
from perceiver_deploy.export.passes.forms import require_shapes

_DOMAIN = "com.microsoft"


class FuseForOnnxruntime(GraphPass):
    """Replace attentions by com.microsoft's `MultiHeadAttention`, whose CPU kernel never holds all scores at once.

    An attention with a mask stays as it is: the operator wants a mask spelled out for every query, and with one it
    computes all scores. Source: onnxruntime, contrib_ops/cpu/bert/multihead_attention.cc.
    """

    name = "attentions for onnxruntime"

    def requires(self, model: ir.Model) -> None:
        """Types and shapes."""
        require_shapes(model)

    def run(self, model: ir.Model) -> int:
        """Returns how many attentions were replaced."""
        fused = 0
        for attention, write in _fusible(model):
            operands = write()
            write_operator(attention, operands, "MultiHeadAttention", domain=_DOMAIN, num_heads=operands.heads)
            fused += 1
        if fused:
            model.graph.opset_imports[_DOMAIN] = 1
        return fused

    def ensures(self, model: ir.Model) -> None:
        """Attentions are left with a mask or operands that are not tokens alone; the operator's domain is declared."""
        if left := [attention.module for attention, _ in _fusible(model)]:
            raise ir.passes.PostconditionError(f"Attentions are in plain operators in {left}.")
        used = {node.domain for node in model.graph.all_nodes()}
        if _DOMAIN in used and _DOMAIN not in model.graph.opset_imports:
            raise ir.passes.PostconditionError(f"The domain {_DOMAIN} is not declared.")


def _fusible(model: ir.Model) -> Iterator[tuple[Attention, Callable[[], Operands]]]:
    for attention in find_attentions(model):
        if attention.mask is None and (write := find_operands(attention)) is not None:
            yield attention, write
