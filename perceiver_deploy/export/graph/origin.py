"""What an exported graph says of where it comes from: the module of a node, the axes of the model."""

from __future__ import annotations

import ast
import json

import onnx_ir as ir

from perceiver_deploy.bundle.manifest import Axis
from perceiver_deploy.export.options import AXES

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


def layer_of(module: str) -> str:
    """`encoder.self_attends.0` of `encoder.self_attends.0.mlp.1`: two names, and a number that follows.

    What is in no module is of the "graph".
    """
    names = module.split(".")
    return ".".join(names[: 3 if names[2:] and names[2].isdigit() else 2]) or "graph"


def stated_axes(model: ir.Model) -> dict[str, Axis]:
    """The axes that the metadata of an exported graph describe; none for a graph that is not ours."""
    found = json.loads(model.metadata_props.get(AXES, "{}"))
    return {name: Axis(**axis) for name, axis in found.items()}
