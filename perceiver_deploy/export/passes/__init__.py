"""Graph passes over onnx-ir, one a file, and the order they run in."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common
from onnxscript import optimizer

from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.export.passes.axis_names import name_axes
from perceiver_deploy.export.passes.metadata import strip_metadata
from perceiver_deploy.export.passes.node_names import name_nodes
from perceiver_deploy.export.passes.weight_layout import transpose_weights
from perceiver_deploy.manifest import Signature


def optimize(model: ir.Model, signature: Signature, options: GraphOptions) -> dict[str, int]:
    """Fold what is constant, share what is equal, and give axes and nodes the model's names, in place.

    Returns how many times each rewrite fired.
    """
    rewrites = {"transposed weights": transpose_weights(model)}
    optimizer.optimize_ir(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.DeduplicateInitializersPass()(model)
    common.RemoveUnusedNodesPass()(model)
    name_axes(model, signature)
    name_nodes(model)
    strip_metadata(model)
    return rewrites
