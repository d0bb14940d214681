"""Remove what the exporter wrote about the machine it ran on."""

from __future__ import annotations

import onnx_ir as ir


def strip_metadata(model: ir.Model) -> int:
    """Clear doc strings and metadata of model, graph, nodes and values: they hold source paths and stack traces.

    Requires: nothing. Ensures: two exports of one model are byte-identical. Returns how many entries were removed.
    """
    graph = model.graph
    removed = len(model.metadata_props) + len(graph.metadata_props)
    model.metadata_props.clear()
    graph.metadata_props.clear()
    model.doc_string = graph.doc_string = None
    values = [*graph.inputs, *graph.initializers.values()]
    for node in graph.all_nodes():
        removed += len(node.metadata_props)
        node.metadata_props.clear()
        node.doc_string = None
        values.extend(node.outputs)
    for value in values:
        removed += len(value.metadata_props)
        value.metadata_props.clear()
        value.doc_string = None
    return removed
