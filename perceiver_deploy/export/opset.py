"""Rewrite an exported model for an older or newer version of ONNX's operators."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnxscript import version_converter

from perceiver_deploy.errors import ExportError
from perceiver_deploy.export.passes.driver import run_pass
from perceiver_deploy.export.passes.tidy.older_operators import UseOlderOperators
from perceiver_deploy.progress import only_errors

_PAD_INPUTS_WITH_AXES = 4
_UNTOUCHED = "untouched"


def set_opset(model: ir.Model, opset: int) -> None:
    """Rewrite a model for an opset in place, and mark it with the lowest IR version that has it.

    Raises:
        ExportError: an operator of the model cannot be expressed in that opset.
    """
    if opset != (found := model.opset_imports[""]):
        run_pass(model, UseOlderOperators(opset))
        _require_operators(model, opset)
        _convert(model, opset)
        if model.opset_imports[""] != opset:
            nodes = [node for node in model.graph.all_nodes() if node.domain == ""]
            changed = sorted({node.op_type for node in nodes if _since(node, opset) != _since(node, found)})
            raise ExportError(
                f"The model could not be rewritten from opset {found} to {opset}: onnx has no rule for one of the "
                f"operators that differ between them ({', '.join(changed)}). Export it with --opset {found}."
            )
        _drop_default_attributes(model, opset)
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    model.ir_version = onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True)


def _require_operators(model: ir.Model, opset: int) -> None:
    for node in model.graph.all_nodes():
        if node.domain == "" and _since(node, opset) is None:
            raise ExportError(
                f"{node.name} needs the operator {node.op_type}, which opset {opset} does not have. "
                "Export with a higher --opset."
            )


def _since(node: ir.Node, opset: int) -> int | None:
    """The version that the operator of a node has in an opset; None where the opset does not have it."""
    try:
        return onnx.defs.get_schema(node.op_type, opset, node.domain).since_version
    except onnx.defs.SchemaError:
        return None


def _convert(model: ir.Model, opset: int) -> None:
    """Upwards by onnxscript's rules, downwards by onnx's; where a rule is missing the model stays as it was.

    A Pad without axes and a Split into given sizes are the same in every opset, and onnx has no rules for them: they
    pass in a domain of their own.
    """
    for node in model.graph.all_nodes():
        same = {"Pad": len(node.inputs) < _PAD_INPUTS_WITH_AXES, "Split": "num_outputs" not in node.attributes}
        if node.domain == "" and same.get(node.op_type):
            node.domain = _UNTOUCHED
    model.opset_imports[_UNTOUCHED] = 1
    try:
        with only_errors(version_converter.__name__):  # not which of the two is used, nor why neither can
            version_converter.convert_version(model, opset, fallback=True)
    finally:
        model.opset_imports.pop(_UNTOUCHED, None)
        for node in model.graph.all_nodes():
            node.domain = "" if node.domain == _UNTOUCHED else node.domain


def _drop_default_attributes(model: ir.Model, opset: int) -> None:
    """Remove attributes that came after the opset and are at their default: onnx leaves them on Reduce nodes."""
    for node in model.graph.all_nodes():
        if node.domain != "":
            continue
        known = onnx.defs.get_schema(node.op_type, opset, node.domain).attributes
        newest = onnx.defs.get_schema(node.op_type).attributes
        for name in [name for name in node.attributes if name not in known]:
            default = newest[name].default_value if name in newest else None
            if default is None or node.attributes[name].value != onnx.helper.get_attribute_value(default):
                raise ExportError(
                    f"{node.name} needs the attribute {name} of {node.op_type}, which opset {opset} does not have. "
                    "Export with a higher --opset."
                )
            del node.attributes[name]
