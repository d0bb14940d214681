"""Find tokens of a grid whose position features depend on the row alone or on the column alone.

The form, as model/positions.py writes Fourier features beside the content of each position:

    tokens = Concat(content, features, ...), axis -1        content [batch, height * width, channels]
    features = [Cast](Reshape(Expand(Reshape(part))))       part [height or width, channels], before Expand
                                                            [1, height, 1, channels] or [1, 1, width, channels]
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.graph.values import constant_array

_ROWS, _COLUMNS = 1, 2  # axes of [batch, height, width, channels]


@dataclass(frozen=True)
class Part:
    """Channels of tokens: where they come from, and which of the tokens' channels they are."""

    value: ir.Value
    channels: range


@dataclass(frozen=True)
class GridTokens:
    """Tokens [batch, height * width, channels] of a grid.

    `content` is [batch, height * width, channels]; the parts of `rows` are [height, channels], those of `columns`
    [width, channels].
    """

    tokens: ir.Value
    content: Part
    rows: tuple[Part, ...]
    columns: tuple[Part, ...]

    @classmethod
    def of(cls, tokens: ir.Value) -> GridTokens | None:
        """What tokens are made of, or None where that is another form."""
        node = tokens.producer()
        if node is None or node.op_type != "Concat" or node.attributes.get_int("axis", 0) not in (-1, 2):
            return None
        content: list[Part] = []
        placed: dict[int, list[Part]] = {_ROWS: [], _COLUMNS: []}
        first = 0
        for value in node.inputs:
            if value is None or value.shape is None or not isinstance(channels := value.shape[-1], int):
                return None
            part, first = range(first, first + channels), first + channels
            if (found := _feature(value)) is None:
                content.append(Part(value, part))
            else:
                placed[found[1]].append(Part(found[0], part))
        if len(content) != 1 or not placed[_ROWS] or not placed[_COLUMNS]:
            return None
        return cls(tokens, content[0], tuple(placed[_ROWS]), tuple(placed[_COLUMNS]))

    @property
    def count(self) -> int:
        """How many channels a token has."""
        return len(self.content.channels) + sum(len(part.channels) for part in (*self.rows, *self.columns))


def joined(tape: Tape, parts: tuple[Part, ...]) -> ir.Value:
    """The features of all rows, or of all columns, beside each other: [size, channels], in the tokens' type."""
    values = []
    for part in parts:
        assert part.value.shape is not None
        same = part.value.dtype == tape.dtype
        values.append(part.value if same else tape.op("Cast", [part.value], part.value.shape, to=tape.dtype))
    assert values[0].shape is not None
    size = values[0].shape[0]
    return tape.op("Concat", values, [size, sum(len(part.channels) for part in parts)], axis=-1)


def _feature(value: ir.Value) -> tuple[ir.Value, int] | None:
    """The part that features were expanded from, and the axis that it runs along."""
    nodes: list[ir.Node] = []
    for wanted in ("Reshape", "Expand", "Reshape"):
        node = value.producer()
        if node is not None and node.op_type == "Cast" and not nodes and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        if node is None or node.op_type != wanted or node.inputs[0] is None:
            return None
        nodes.append(node)
        value = node.inputs[0]
    before, grid = nodes[1].inputs[0], nodes[1].outputs[0]
    assert before is not None
    if value.shape is None or before.shape is None or grid.shape is None or len(value.shape) != 2:
        return None
    _, height, width, channels = grid.shape if len(grid.shape) == 4 else (None,) * 4
    if constant_array(nodes[2].inputs[1]) is None or channels != value.shape[1] or height == 1 or width == 1:
        return None
    if list(before.shape) == [1, height, 1, channels]:
        return value, _ROWS
    return (value, _COLUMNS) if list(before.shape) == [1, 1, width, channels] else None
