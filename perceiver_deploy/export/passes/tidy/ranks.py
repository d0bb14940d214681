"""Let operators that pick one place along an axis keep the axis, and a Squeeze of its own remove it.

OpenVINO's low-precision transformations move the scales of an INT8 product, [1, 1, channels], behind a Gather that
removes an axis and leave theirs as they are: `logits` come out as [1, batch, classes] where nothing that needs the axis
stands between (seen in 2026.4, with a bias of zeros, which is folded away). They handle a Squeeze.
"""

from __future__ import annotations

import onnx_ir as ir

from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.graph.values import constant_array
from perceiver_deploy.export.passes.base import GraphPass

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class KeepRanks(GraphPass):
    """Split each Gather of floats at one stored place into a Gather that keeps the axis and a Squeeze."""

    name = "ranks kept"

    def requires(self, model: ir.Model) -> None:
        """Shapes and types of what is gathered."""
        for node in model.graph:
            source = node.inputs[0] if node.op_type == "Gather" else None
            if source is not None and (source.shape is None or node.outputs[0].dtype is None):
                raise ir.passes.PreconditionError(f"Shape or type of what {node.name} gathers is not known.")

    def run(self, model: ir.Model) -> int:
        """Returns how many Gather nodes were split."""
        split = 0
        for node in list(model.graph):
            place = _place(node)
            if place is None:
                continue
            source, axis = node.inputs[0], node.attributes.get_int("axis", 0)
            assert source is not None
            assert source.shape is not None
            shape = list(source.shape)
            shape[axis] = 1
            tape = Tape(node, module_of(node))
            kept = tape.op("Gather", [source, tape.integers([place])], shape, axis=axis)
            node.op_type = "Squeeze"
            node.attributes.pop("axis", None)
            node.replace_input_with(0, kept)
            node.replace_input_with(1, tape.integers([axis % len(shape)]))
            split += 1
        return split

    def ensures(self, model: ir.Model) -> None:
        """No Gather of floats at a stored place removes an axis."""
        if left := [node.name for node in model.graph if _place(node) is not None]:
            raise ir.passes.PostconditionError(f"An axis is removed by {left}.")


def _place(node: ir.Node) -> int | None:
    """The place that a Gather of floats takes along its axis; None of any other node."""
    if node.op_type != "Gather" or node.outputs[0].dtype not in _FLOATS:
        return None
    source = node.inputs[0]
    place = constant_array(node.inputs[1])
    return None if place is None or place.ndim or source is None or source.shape is None else int(place)
