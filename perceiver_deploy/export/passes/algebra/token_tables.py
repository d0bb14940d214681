"""Look up what a token at a position gives, instead of computing it: norm and projections from tables.

The form, as the text adapter and the cross-attention write it (what is in [] may be missing):

    tokens = Add(Gather(embeddings, ids), [Slice](positions))      embeddings [vocabulary, channels]
    result = [Add bias](MatMul(LayerNormalization(tokens), weight))

With e and p the rows of embeddings and positions less their means, the norm is

    (e + p) * inverse * scale + shift        inverse = 1 / sqrt(mean((e + p)^2) + epsilon)

where `inverse` depends on the pair of token and position alone, so that

    result = (e scale weight + p scale weight) * inverse + (shift weight + bias)

needs a row of a table for each token, one for each position, and one number for each pair. The bytes of Perceiver's
texts are 262 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.graph.values import constant_array, float64, sole_user
from perceiver_deploy.export.passes.base import GraphPass
from perceiver_deploy.export.passes.forms import require_shapes, require_weights_as_read

LOOKED_UP = "projections of tokens looked up"
MOST_PAIRS = 1 << 20
"""4 MiB in float32; published texts have 262 tokens at 2048 positions."""


@dataclass(frozen=True)
class _NormedTokens:
    """The nodes of the form; `pick` takes the first positions, None where all are added."""

    norm: ir.Node
    gather: ir.Node
    positions: ir.Value
    pick: ir.Node | None

    @classmethod
    def of(cls, norm: ir.Node) -> _NormedTokens | None:
        if norm.op_type != "LayerNormalization" or norm.attributes.get_int("axis", -1) not in (-1, 2):
            return None
        added = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if len(norm.inputs) < 3 or added is None or added.op_type != "Add":
            return None
        gather, pick = (value.producer() if value is not None else None for value in added.inputs)
        positions = added.inputs[1]
        if gather is None or gather.op_type != "Gather" or gather.attributes.get_int("axis", 0) != 0:
            return None
        if pick is not None:
            axes = constant_array(pick.inputs[3]) if pick.op_type == "Slice" and len(pick.inputs) > 3 else None
            if axes is None or axes.tolist() != [0]:
                return None
            positions = pick.inputs[0]
        weights = [constant_array(value) for value in (gather.inputs[0], positions, *norm.inputs[1:3])]
        dimensions = [None if weight is None else weight.ndim for weight in weights]
        if positions is None or dimensions != [2, 2, 1, 1]:
            return None
        return cls(norm, gather, positions, pick)

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of embeddings and of positions less their means, [vocabulary, channels] and [positions, channels]."""
        embeddings, positions = float64(self.gather.inputs[0]), float64(self.positions)
        return embeddings - embeddings.mean(1, keepdims=True), positions - positions.mean(1, keepdims=True)

    @property
    def pairs(self) -> int:
        embeddings, positions = self.parts
        return len(embeddings) * len(positions)

    def projections(self) -> list[ir.Node]:
        """The readers of the norm, where all are projections, and few enough pairs for a table."""
        normed = self.norm.outputs[0]
        readers = [usage.node for usage in normed.uses()]
        found = self.pairs <= MOST_PAIRS and all(_is_projection(node, normed) for node in readers)
        return readers if found else []

    def inverse(self) -> np.ndarray:
        """[vocabulary, positions]."""
        embeddings, positions = self.parts
        squares = (embeddings**2).sum(1)[:, None] + (positions**2).sum(1) + 2 * embeddings @ positions.T
        epsilon = self.norm.attributes.get_float("epsilon", 1e-5)
        return np.asarray(1 / np.sqrt(squares / embeddings.shape[1] + epsilon))

    def picked(self, tape: Tape, name: str, table: np.ndarray) -> ir.Value:
        """Rows of a table [positions, ...] for the positions that are added."""
        stored = tape.weight(name, table)
        if self.pick is None:
            return stored
        length = self.pick.outputs[0].shape
        assert length is not None
        others = [value for value in self.pick.inputs[1:] if value is not None]
        shape = [length[0], *table.shape[1:]]
        return tape.op("Slice", [stored, *others], shape, dtype=stored.dtype)


class LookUpTokens(GraphPass):
    """Replace norm and projections of embedded tokens by tables, which are computed in float64.

    Only where nothing but projections reads the norm, and where there are at most 2^20 pairs of token and position.
    """

    name = LOOKED_UP

    def requires(self, model: ir.Model) -> None:
        """Types and shapes; weights as MatMul reads them."""
        require_shapes(model)
        require_weights_as_read(model)

    def run(self, model: ir.Model) -> int:
        """Returns how many projections are looked up."""
        count = 0
        for norm in list(model.graph):
            tokens = _NormedTokens.of(norm)
            projections = [] if tokens is None else tokens.projections()
            if tokens is not None and projections:
                inverse = _write_inverse(tokens)
                for projection in projections:
                    _write_projection(tokens, projection, inverse)
                count += len(projections)
        return count

    def ensures(self, model: ir.Model) -> None:
        """No such norm is left."""
        for norm in model.graph:
            tokens = _NormedTokens.of(norm)
            if tokens is not None and tokens.projections():
                raise ir.passes.PostconditionError(f"Tables could stand for {norm.name}.")


def _is_projection(node: ir.Node, source: ir.Value) -> bool:
    if node.op_type != "MatMul" or node.inputs[0] is not source:
        return False
    weight = constant_array(node.inputs[1])
    return weight is not None and weight.ndim == 2


def _write_inverse(tokens: _NormedTokens) -> ir.Value:
    """One number for each token and position, [batch, length, 1]."""
    tape, ids = Tape(tokens.norm, module_of(tokens.norm)), tokens.gather.inputs[1]
    assert ids is not None
    assert ids.shape is not None
    table = tokens.inverse()
    vocabulary, count = table.shape
    place = tokens.picked(tape, "places", np.arange(count))
    first = tape.op("Mul", [ids, tape.integers([count])], ids.shape, dtype=ir.DataType.INT64)
    index = tape.op("Add", [first, place], ids.shape, dtype=ir.DataType.INT64)
    flat = tape.weight("inverse", table.reshape(vocabulary * count))
    found = tape.op("Gather", [flat, index], ids.shape, axis=0)
    return tape.op("Unsqueeze", [found, tape.integers([-1])], [*ids.shape, 1])


def _write_projection(tokens: _NormedTokens, matmul: ir.Node, inverse: ir.Value) -> None:
    weight = float64(matmul.inputs[1])
    scale, shift = (float64(value) for value in tokens.norm.inputs[1:3])
    last, constant = matmul, shift @ weight
    added = sole_user(matmul.outputs[0])
    if added is not None and added.op_type == "Add":
        bias = constant_array(next(value for value in added.inputs if value is not matmul.outputs[0]))
        if bias is not None and bias.ndim == 1:
            last, constant = added, constant + bias
    tape, ids = Tape(last, module_of(matmul)), tokens.gather.inputs[1]
    assert ids is not None
    embeddings, positions = ((part * scale) @ weight for part in tokens.parts)
    shape = matmul.outputs[0].shape
    assert shape is not None
    rows = tape.op("Gather", [tape.weight("tokens", embeddings), ids], shape, axis=0)
    both = tape.like(rows, "Add", tokens.picked(tape, "positions", positions))
    result = tape.like(tape.like(both, "Mul", inverse), "Add", tape.weight("constant", constant))
    last.outputs[0].replace_all_uses_with(result)
