"""Which passes an exported graph goes through, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from perceiver_deploy.bundle.manifest import Signature, opt_sizes
from perceiver_deploy.export.options import BY_ROW, GraphOptions
from perceiver_deploy.export.passes.algebra.batch_sharing import ShareOverBatch
from perceiver_deploy.export.passes.algebra.reassociation import Reassociate
from perceiver_deploy.export.passes.algebra.stored_rows import StoreRows
from perceiver_deploy.export.passes.algebra.token_tables import LookUpTokens
from perceiver_deploy.export.passes.attentions.multi_head_attention import FuseForOnnxruntime
from perceiver_deploy.export.passes.attentions.opset23 import FuseForOpset23
from perceiver_deploy.export.passes.attentions.padded_heads import PadHeads
from perceiver_deploy.export.passes.base import GraphPass
from perceiver_deploy.export.passes.grids.by_row import AttendByRow
from perceiver_deploy.export.passes.grids.large_grids import CountLargeGrids
from perceiver_deploy.export.passes.names.axis_names import NameAxes
from perceiver_deploy.export.passes.names.metadata import StripMetadata
from perceiver_deploy.export.passes.names.node_names import NameNodes
from perceiver_deploy.export.passes.tidy.constants import FoldConstants
from perceiver_deploy.export.passes.tidy.equal_initializers import ShareEqualInitializers
from perceiver_deploy.export.passes.tidy.equal_nodes import ShareEqualNodes
from perceiver_deploy.export.passes.tidy.no_ops import RemoveNoOps
from perceiver_deploy.export.passes.tidy.ranks import KeepRanks
from perceiver_deploy.export.passes.tidy.weight_layout import TransposeWeights


def export_passes(signature: Signature, options: GraphOptions) -> Iterator[GraphPass]:
    """Fold what is constant, share what is equal, and give axes and nodes the model's names."""
    sizes = opt_sizes(signature.axes)
    yield from (TransposeWeights(), FoldConstants(), ShareEqualNodes(), NameAxes(signature), RemoveNoOps(), KeepRanks())
    if options.pad_heads:
        yield PadHeads()
    if options.reassociate:
        yield from algebra_passes(sizes)
    yield ShareEqualInitializers()
    if options.attention == "onnxruntime":
        yield FuseForOnnxruntime()
    elif options.attention == "opset23":
        yield FuseForOpset23()
    elif options.attention in BY_ROW:
        yield AttendByRow(sizes, loop_over_queries=options.attention == "all-rows")
    else:
        yield CountLargeGrids(sizes)
    yield from (NameNodes(), StripMetadata())


def algebra_passes(sizes: Mapping[str, int]) -> Iterator[GraphPass]:
    """Change how much is computed at these sizes of the axes, not what: to be judged in float64."""
    yield from (LookUpTokens(), Reassociate(sizes), ShareOverBatch(), StoreRows(), ShareEqualNodes())
