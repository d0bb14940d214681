"""Which module of the model a node comes from."""

from __future__ import annotations

import ast

import onnx_ir as ir

SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata that the exporter puts on nodes: the names of the modules around it, outermost first, and its own."""

_WRAPPED = "wrapped"
"""What a raw model calls the model inside, whose modules keep their names."""


def module_of(node: ir.Node) -> str:
    """`encoder.cross_attention.query`, by the exporter's metadata or, where that is stripped, by the node's name.

    Empty where a node belongs to the model itself or to no module.
    """
    if SCOPES in node.metadata_props:
        scopes = ast.literal_eval(node.metadata_props[SCOPES])
        module = scopes[-2] if len(scopes) > 1 and not scopes[-2].startswith("_") else ""
        return str(module).removeprefix(_WRAPPED).removeprefix(".")
    module = (node.name or "").rpartition("/")[0]
    return "" if module == "graph" else module
