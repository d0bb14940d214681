"""Find the attentions of an exported graph, with all that a rewrite or a table of attentions needs to know.

The form, as export/attention/translation.py and model/perceiver.py write it (every part in [] may be missing):

    scores   = MatMul([Mul](query, scale), keys)        query [batch, heads, queries, head size]
    weights  = Softmax([Add](scores, mask))             keys [batch, heads, head size, tokens]
    attended = MatMul(weights, values)                  values [batch, heads, tokens, head size]
    result   = [Add bias](MatMul([Mul row factors](Reshape(Transpose(attended))), weight))
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.graph.values import TRANSPARENT, constant_array, sole_user

_SPLIT = (0, 2, 1, 3)
_KEEPS_ROWS = ("LayerNormalization", "Expand", "Unsqueeze", "Slice")


@dataclass(frozen=True)
class Projection:
    """What feeds one side of an attention: `result = source weight + bias`, then split into heads.

    `source` and `result` are [batch, tokens, channels] (batch may be 1), `weight` [channels in, channels out] and
    `bias` [channels out] are initialisers. Without a weight, `source` is `result`.
    """

    source: ir.Value
    result: ir.Value
    weight: ir.Value | None = None
    bias: ir.Value | None = None


@dataclass(frozen=True)
class Output:
    """What follows the attention: `result = factors * heads merged, times weight, plus bias`.

    `factors` broadcast over channels: [batch, 1 or queries, 1]. They are 0 where a query gets nothing, else 1.
    """

    matmul: ir.Node
    weight: ir.Value
    bias: ir.Value | None
    result: ir.Value
    factors: tuple[ir.Value, ...]


@dataclass(frozen=True)
class Attention:
    """One attention: nodes, operands and where they come from.

    `query`, `key` and `value` are None where an operand is not split from tokens [batch, tokens, channels], such as a
    stored query. `mask` is added to the scores; `output` is None where the result goes elsewhere than to a projection.
    """

    module: str
    scores: ir.Node
    softmax: ir.Node
    weighted: ir.Node
    scale: float
    query: Projection | None
    key: Projection | None
    value: Projection | None
    mask: ir.Value | None
    output: Output | None = field(default=None)

    @property
    def heads(self) -> int:
        """Number of heads, by the scores [batch, heads, queries, tokens]."""
        shape = self.scores.outputs[0].shape
        assert shape is not None
        assert isinstance(shape[1], int)
        return shape[1]


def find_attentions(model: ir.Model) -> list[Attention]:
    """Every attention of a graph, in its order: each Softmax over the last axis between two MatMul nodes."""
    found = []
    for node in model.graph.all_nodes():
        if node.op_type == "Softmax" and (attention := _match(node)) is not None:
            found.append(attention)
    return found


def is_learned(value: ir.Value) -> bool:
    """Whether tokens are the same for every input: a table, or rows of it, normed and repeated over the batch."""
    while (node := value.producer()) is not None and node.op_type in _KEEPS_ROWS and node.inputs[0] is not None:
        value = node.inputs[0]
    return constant_array(value) is not None


def _match(softmax: ir.Node) -> Attention | None:
    scores = _producer(softmax.inputs[0])
    mask = None
    if scores is not None and scores.op_type == "Add":
        mask, scores = scores.inputs[1], _producer(scores.inputs[0])
    weighted = sole_user(softmax.outputs[0])
    if scores is None or scores.op_type != "MatMul" or weighted is None or weighted.op_type != "MatMul":
        return None
    query, keys, values = scores.inputs[0], scores.inputs[1], weighted.inputs[1]
    if query is None or keys is None or values is None or softmax.inputs[0] is None or not _is_4d(scores.outputs[0]):
        return None
    query, scale = _unscaled(query)
    return Attention(
        module=module_of(softmax),
        scores=scores,
        softmax=softmax,
        weighted=weighted,
        scale=scale,
        query=_projection(query, transposed=False),
        key=_projection(keys, transposed=True),
        value=_projection(values, transposed=False),
        mask=mask,
        output=_output(weighted),
    )


def _unscaled(query: ir.Value) -> tuple[ir.Value, float]:
    node = _producer(query)
    if node is not None and node.op_type == "Mul" and node.inputs[0] is not None:
        factor = constant_array(node.inputs[1])
        if factor is not None and factor.size == 1:
            return node.inputs[0], float(factor.item())
    return query, 1.0


def _projection(operand: ir.Value, *, transposed: bool) -> Projection | None:
    """Follow an operand back to its tokens: they are split into heads by Reshape and Transpose, or have one head."""
    node = _producer(operand)
    if node is None:
        return None
    if node.op_type == "Transpose":
        perm = tuple(node.attributes.get_ints("perm", ()))
        if transposed and perm == (0, 1, 3, 2):
            return None if node.inputs[0] is None else _projection(node.inputs[0], transposed=False)
        split = _producer(node.inputs[0])
        wanted = (0, 2, 3, 1) if transposed else _SPLIT
        if perm != wanted or split is None or split.op_type != "Reshape" or not _is_4d(split.outputs[0]):
            return None
        tokens = split.inputs[0]
    elif node.op_type == "Unsqueeze" and not transposed:
        tokens = node.inputs[0]
    else:
        return None
    if tokens is None or tokens.shape is None or len(tokens.shape) != 3:
        return None
    return _linear(tokens)


def _linear(result: ir.Value) -> Projection:
    node, bias = _producer(result), None
    if node is not None and node.op_type == "Add" and constant_array(node.inputs[1]) is not None:
        bias, node = node.inputs[1], _producer(node.inputs[0])
    if node is not None and node.op_type == "MatMul" and node.inputs[0] is not None:
        weight = constant_array(node.inputs[1])
        if weight is not None and weight.ndim == 2:
            return Projection(node.inputs[0], result, node.inputs[1], bias)
    return Projection(result, result)


def _output(weighted: ir.Node) -> Output | None:
    transpose = sole_user(weighted.outputs[0])
    merge = None if transpose is None or transpose.op_type != "Transpose" else sole_user(transpose.outputs[0])
    if merge is None or merge.op_type != "Reshape":
        return None
    factors: list[ir.Value] = []
    node = sole_user(merge.outputs[0])
    while node is not None and node.op_type == "Mul" and node.inputs[1] is not None and not _is_4d(node.inputs[1]):
        factors.append(node.inputs[1])
        node = sole_user(node.outputs[0])
    if node is None or node.op_type != "MatMul" or node.inputs[1] is None or constant_array(node.inputs[1]) is None:
        return None
    result, bias = node.outputs[0], None
    add = sole_user(result)
    if add is not None and add.op_type == "Add" and constant_array(add.inputs[1]) is not None:
        result, bias = add.outputs[0], add.inputs[1]
    return Output(node, node.inputs[1], bias, result, tuple(factors))


def _producer(value: ir.Value | None) -> ir.Node | None:
    """The node that computes a value; of a quantised or cast one, what computes the value it was before."""
    node = None if value is None else value.producer()
    return _producer(node.inputs[0]) if node is not None and node.op_type in TRANSPARENT else node


def _is_4d(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) == 4
