"""Graph passes over onnx-ir, one a file, and the order they run in."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import onnx_ir.passes.common as common
from onnxscript import optimizer

from perceiver_deploy.bundle.manifest import Signature, opt_sizes
from perceiver_deploy.export.options import BY_ROW, GraphOptions
from perceiver_deploy.export.passes.axis_names import name_axes
from perceiver_deploy.export.passes.batch_sharing import share_over_batch
from perceiver_deploy.export.passes.fused_attention import fuse_for_onnxruntime, fuse_for_opset23
from perceiver_deploy.export.passes.grids.by_row import LEFT, attend_by_row, find_large_grids
from perceiver_deploy.export.passes.metadata import strip_metadata
from perceiver_deploy.export.passes.no_ops import remove_no_ops
from perceiver_deploy.export.passes.node_names import name_nodes
from perceiver_deploy.export.passes.padded_heads import pad_heads
from perceiver_deploy.export.passes.ranks import keep_ranks
from perceiver_deploy.export.passes.reassociation import reassociate
from perceiver_deploy.export.passes.stored_rows import store_rows
from perceiver_deploy.export.passes.token_tables import LOOKED_UP, look_up_tokens
from perceiver_deploy.export.passes.weight_layout import transpose_weights


def optimize(model: ir.Model, signature: Signature, options: GraphOptions) -> dict[str, int]:
    """Fold what is constant, share what is equal, and give axes and nodes the model's names, in place.

    Returns how many times each rewrite fired.
    """
    rewrites = {"transposed weights": transpose_weights(model)}
    optimizer.optimize_ir(model)
    common.CommonSubexpressionEliminationPass()(model)
    name_axes(model, signature)
    rewrites["no-ops removed"] = remove_no_ops(model)
    rewrites["ranks kept"] = keep_ranks(model)
    if options.pad_heads:
        rewrites["padded heads"] = pad_heads(model)
    if options.reassociate:
        rewrites |= apply_algebra(model, opt_sizes(signature.axes))
    initializers = len(model.graph.initializers)
    common.DeduplicateInitializersPass()(model)
    rewrites["duplicate initializers"] = initializers - len(model.graph.initializers)
    common.RemoveUnusedNodesPass()(model)
    if options.attention == "onnxruntime":
        rewrites["attentions for onnxruntime"] = fuse_for_onnxruntime(model)
    elif options.attention == "opset23":
        rewrites["attentions of opset 23"] = fuse_for_opset23(model)
    elif options.attention in BY_ROW:
        in_loop = options.attention == "all-rows"
        rewrites |= attend_by_row(model, opt_sizes(signature.axes), loop_over_queries=in_loop)
    elif left := find_large_grids(model, opt_sizes(signature.axes)):
        rewrites[LEFT] = len(left)
    name_nodes(model)
    strip_metadata(model)
    return rewrites


def apply_algebra(model: ir.Model, sizes: Mapping[str, int]) -> dict[str, int]:
    """Change how much is computed, not what: to be judged in float64. Returns how many times each rewrite fired."""
    counts = {LOOKED_UP: look_up_tokens(model)}
    common.RemoveUnusedNodesPass()(model)
    counts |= reassociate(model, sizes)
    common.RemoveUnusedNodesPass()(model)
    counts["shared over the batch"] = share_over_batch(model)
    counts["stored rows"] = store_rows(model)
    common.RemoveUnusedNodesPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    return counts
