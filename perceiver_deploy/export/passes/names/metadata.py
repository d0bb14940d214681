"""Remove what the exporter wrote about the machine it ran on."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from perceiver_deploy.export.passes.base import GraphPass


class StripMetadata(GraphPass):
    """Clear doc strings and metadata of model, graph, nodes and values: they hold source paths and stack traces."""

    name = "metadata removed"
    recorded = False

    def run(self, model: ir.Model) -> int:
        """Returns how many entries of metadata were removed."""
        removed = 0
        for holder in _holders(model):
            removed += len(holder.metadata_props)
            holder.metadata_props.clear()
            holder.doc_string = None
        return removed

    def ensures(self, model: ir.Model) -> None:
        """None is left, so that two exports of one model are byte-identical."""
        for holder in _holders(model):
            if holder.metadata_props or holder.doc_string is not None:
                raise ir.passes.PostconditionError(f"{holder!r:.100} has metadata.")


def _holders(model: ir.Model) -> Iterator[ir.Model | ir.Graph | ir.Node | ir.Value]:
    """All that can have metadata."""
    yield model
    yield model.graph
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph.all_nodes():
        yield node
        yield from node.outputs
