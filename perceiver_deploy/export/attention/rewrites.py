"""Write an attention with its products associated in another way (see export/attention/plans.py)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_deploy.export.attention.match import Attention, Output, Projection
from perceiver_deploy.export.graph.tape import Tape
from perceiver_deploy.export.graph.values import float64


@dataclass(frozen=True)
class ProjectedAttention:
    """An attention all of whose sides are projected. Weights and biases are read in float64, head by head."""

    found: Attention
    query: Projection
    key: Projection
    value: Projection
    output: Output

    @classmethod
    def of(cls, found: Attention) -> ProjectedAttention | None:
        """The attention, or None where a projection is missing, or the last one's result leaves the graph."""
        query, key, value, output = found.query, found.key, found.value, found.output
        if query is None or key is None or value is None or output is None or output.result.is_graph_output():
            return None
        if query.weight is None or key.weight is None or value.weight is None:
            return None
        return cls(found, query, key, value, output)

    def weight(self, side: Projection) -> np.ndarray:
        """[heads, channels in, head size]."""
        weight = float64(side.weight)
        return weight.reshape(len(weight), self.found.heads, -1).transpose(1, 0, 2)

    def bias(self, side: Projection) -> np.ndarray:
        """[heads, 1, head size], to be read only where there is one."""
        return float64(side.bias).reshape(self.found.heads, 1, -1)

    def value_to_output(self) -> np.ndarray:
        """Value and output projection in one: [heads, kv channels, channels out]."""
        return self.weight(self.value) @ self.output_weight()

    def output_weight(self) -> np.ndarray:
        """[heads, head size, channels out]."""
        weight = float64(self.output.weight)
        return weight.reshape(self.found.heads, -1, weight.shape[1])


def unproject_keys(attention: ProjectedAttention) -> None:
    """(z Wq + bq) (x Wk + bk)^T = (z (Wq Wk^T) + bq Wk^T) x^T + what softmax ignores; the weight takes the scale in."""
    found = attention.found
    tape = Tape(found.scores, found.module)
    to_keys = attention.weight(attention.key).transpose(0, 2, 1) * found.scale
    folded, bias = attention.weight(attention.query) @ to_keys, None
    weight = tape.weight("query.weight.by_key", np.concatenate(folded, axis=1))
    if attention.query.bias is not None:
        bias = tape.weight("query.bias.by_key", (attention.bias(attention.query) @ to_keys).reshape(-1))
    query = tape.with_heads(tape.linear(attention.query.source, weight, bias, "query"), found.heads)
    _feed(found.scores, query, tape.swapped(tape.with_heads(attention.key.source, 1), 2, 3))


def unproject_queries(attention: ProjectedAttention) -> None:
    """(z Wq + bq) (x Wk + bk)^T = [z 1] (x (Wk [Wq bq]^T))^T + what softmax ignores; the weight takes the scale in."""
    found, query, source = attention.found, attention.weight(attention.query), attention.query.source
    tape = Tape(found.scores, found.module)
    if attention.query.bias is not None:
        query, source = np.concatenate([query, attention.bias(attention.query)], axis=1), tape.with_one(source)
    folded = attention.weight(attention.key) @ query.transpose(0, 2, 1) * found.scale
    weight = tape.weight("key.weight.by_query", np.concatenate(folded, axis=1))
    keys = tape.with_heads(tape.linear(attention.key.source, weight, None, "key"), found.heads)
    _feed(found.scores, tape.with_heads(source, 1), tape.swapped(keys, 2, 3))


def project_values_late(attention: ProjectedAttention) -> None:
    """(softmax (x Wv + bv)) Wo + bo = (softmax x) (Wv Wo) + bv Wo + bo, summed over heads."""
    weighted, module = attention.found.weighted, attention.found.module
    _feed(weighted, weighted.inputs[0], Tape(weighted, module).with_heads(attention.value.source, 1))
    tape = Tape(attention.output.matmul, module)
    weight = tape.weight("output.weight.by_value", np.concatenate(attention.value_to_output()))
    passed, left = _biases(attention)
    bias = None if passed is None else tape.weight("output.bias.by_value", passed)
    _finish(attention, tape, tape.linear(tape.without_heads(weighted.outputs[0]), weight, bias, "output"), left)


def project_output_early(attention: ProjectedAttention) -> None:
    """(softmax (x Wv + bv)) Wo + bo = softmax (x (Wv Wo) + bv Wo + bo), with one head: x are fewer than results."""
    weighted, module = attention.found.weighted, attention.found.module
    tape = Tape(weighted, module)
    (folded,) = attention.value_to_output()
    passed, left = _biases(attention)
    bias = None if passed is None else tape.weight("value.bias.by_output", passed)
    values = tape.linear(attention.value.source, tape.weight("value.weight.by_output", folded), bias, "value")
    _feed(weighted, weighted.inputs[0], tape.with_heads(values, 1))
    tape = Tape(attention.output.matmul, module)
    _finish(attention, tape, tape.without_heads(weighted.outputs[0]), left)


def _biases(attention: ProjectedAttention) -> tuple[np.ndarray | None, ir.Value | None]:
    """What passes through softmax of both biases, as its rows sum to 1, and the output's if it is behind factors."""
    output, bias = attention.output, attention.output.bias
    passed = [] if output.factors or bias is None else [float64(bias)]
    if attention.value.bias is not None:
        passed.append((attention.bias(attention.value) @ attention.output_weight()).sum(axis=(0, 1)))
    return (np.sum(passed, axis=0) if passed else None), (bias if output.factors else None)


def _finish(attention: ProjectedAttention, tape: Tape, result: ir.Value, bias: ir.Value | None) -> None:
    """Apply the factors, add the bias that is left, and replace the old result."""
    for factor in attention.output.factors:
        result = tape.like(result, "Mul", factor)
    if bias is not None:
        result = tape.like(result, "Add", bias, "output")
    attention.output.result.replace_all_uses_with(result)


def _feed(matmul: ir.Node, first: ir.Value | None, second: ir.Value) -> None:
    matmul.replace_input_with(0, first)
    matmul.replace_input_with(1, second)
    result = matmul.outputs[0]
    assert result.shape is not None
    assert second.shape is not None
    result.shape = ir.Shape([*result.shape[:-1], second.shape[-1]])
