"""Write attentions as the operator that ONNX has from opset 23 on."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import version_converter

from perceiver_deploy.export.attention.fusibility import ATTENTION_OPSET
from perceiver_deploy.export.attention.match import find_attentions
from perceiver_deploy.export.passes.attentions.operands import find_operands, write_operator
from perceiver_deploy.export.passes.base import GraphPass
from perceiver_deploy.export.passes.forms import require_shapes


class FuseForOpset23(GraphPass):
    """Replace attentions by ONNX's `Attention`, and raise the opset to the first that has it.

    A mask has the axis of the queries spelled out, which onnxruntime asks for.
    """

    name = "attentions of opset 23"

    def requires(self, model: ir.Model) -> None:
        """Types and shapes."""
        require_shapes(model)

    def run(self, model: ir.Model) -> int:
        """Returns how many attentions were replaced."""
        if model.graph.opset_imports[""] < ATTENTION_OPSET:
            version_converter.convert_version(model, ATTENTION_OPSET)
        fused = 0
        for attention in find_attentions(model):
            if (write := find_operands(attention)) is not None:
                operands = write()
                heads = operands.heads
                write_operator(attention, operands, "Attention", q_num_heads=heads, kv_num_heads=heads)
                fused += 1
        return fused

    def ensures(self, model: ir.Model) -> None:
        """Attentions are left with operands that are not tokens alone; the opset has the operator."""
        if model.graph.opset_imports[""] < ATTENTION_OPSET:
            raise ir.passes.PostconditionError(f"Opset {model.graph.opset_imports['']} does not have Attention.")
        if left := [a.module for a in find_attentions(model) if find_operands(a) is not None]:
            raise ir.passes.PostconditionError(f"Attentions are in plain operators in {left}.")
