"""Equalise the channels of activations before they are quantised: what is large in few channels goes to the weights.

One scale for a tensor wastes int8's levels where few channels are much larger than the rest. Between a layer norm and
the projections that read it, each channel can be divided by a factor and the weights' rows multiplied by it:
`s = sqrt(largest activation / largest weight)` (G. Xiao et al., "SmoothQuant", ICML 2023, with alpha 0.5). The division
is folded into the norm's scale and bias. Factors are powers of two, so in float nothing is rounded: the function stays
the same to the last bit, apart from the order in which a runtime sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from perceiver_deploy.errors import InputError
from perceiver_deploy.export.graph.values import constant_array

_NORM = "LayerNormalization"


class ChannelPeaks:
    """The largest magnitude that each channel (the last axis) of a tensor was seen to hold."""

    def __init__(self) -> None:
        self.peaks: NDArray[np.float64] = np.zeros(0)

    def add(self, values: NDArray[Any]) -> None:
        """Look at values [..., channels].

        Raises:
            InputError: a value is not finite.
        """
        peaks = np.abs(values).reshape(-1, values.shape[-1]).max(0, initial=0.0).astype(np.float64)
        if not np.isfinite(peaks).all():
            raise InputError("it holds values that are not finite")
        self.peaks = np.maximum(self.peaks, peaks) if self.peaks.size else peaks

    def to_array(self) -> NDArray[np.float64]:
        """All of it."""
        return self.peaks

    def restore(self, array: NDArray[np.float64]) -> None:
        """What `to_array` gave."""
        self.peaks = array


class _Group:
    """Norms that share a scale, a bias or a projection's weight, so that one factor a channel serves all of them."""

    def __init__(self, norm: ir.Node) -> None:
        self.norms = [norm]
        self.parameters = {value for value in norm.inputs[1:] if value is not None}
        self.readers = [(use.node, use.idx) for use in norm.outputs[0].uses()]
        self.weights = {node.inputs[1] for node, _ in self.readers if node.op_type == "MatMul"}

    @property
    def tensors(self) -> set[ir.Value | None]:
        """What the norms and the projections store."""
        return self.parameters | self.weights

    def join(self, other: _Group) -> None:
        self.norms += other.norms
        self.readers += other.readers
        self.parameters |= other.parameters
        self.weights |= other.weights

    def can_be_scaled(self) -> bool:
        """Whether nothing but these norms and projections reads what would be changed."""
        return (
            all(_is_plain(norm) for norm in self.norms)
            and bool(self.readers)
            and all(node.op_type == "MatMul" and index == 0 for node, index in self.readers)
            and all((array := constant_array(weight)) is not None and array.ndim == 2 for weight in self.weights)
            and all(_readers(value) <= {(node, 1) for node, _ in self.readers} for value in self.weights if value)
            and all(_readers(value) <= {(norm, i) for norm in self.norms for i in (1, 2)} for value in self.parameters)
        )


def equalised_tensors(model: ir.Model) -> list[str]:
    """Names of the tensors that `equalise` can scale: outputs of layer norms that only projections read."""
    return [str(norm.outputs[0].name) for group in _groups(model) for norm in group.norms]


def equalise(model: ir.Model, peaks: Mapping[str, NDArray[np.float64]]) -> int:
    """Scale channels in place by their peaks, which are needed of all `equalised_tensors`; returns how many tensors."""
    groups = list(_groups(model))
    for group in groups:
        activation = np.max([peaks[str(norm.outputs[0].name)] for norm in group.norms], axis=0)
        weight = np.max([np.abs(_array(value)).max(1) for value in group.weights], axis=0)
        factors = _factors(activation, weight)
        for parameter in group.parameters:
            _set(parameter, _array(parameter) / factors)
        for stored in group.weights:
            _set(stored, _array(stored) * factors[:, None])
    return sum(len(group.norms) for group in groups)


def _groups(model: ir.Model) -> Iterator[_Group]:
    groups: list[_Group] = []
    for node in model.graph:
        if node.op_type != _NORM:
            continue
        new = _Group(node)
        for group in [group for group in groups if group.tensors & new.tensors]:
            new.join(group)
            groups.remove(group)
        groups.append(new)
    return (group for group in groups if group.can_be_scaled())


def _is_plain(norm: ir.Node) -> bool:
    """Over the last axis, with stored parameters, to no output of the graph."""
    parameters = [constant_array(value) for value in norm.inputs[1:]]
    return (
        norm.attributes.get_int("axis", -1) == -1
        and all(array is not None and array.ndim == 1 for array in parameters)
        and not norm.outputs[0].is_graph_output()
    )


def _readers(value: ir.Value) -> set[tuple[ir.Node, int]]:
    return {(use.node, use.idx) for use in value.uses()}


def _factors(activation: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Powers of two [channels]; 1 where a channel is silent or not read."""
    used = (activation > 0) & (weight > 0)
    ratio = np.divide(activation, weight, out=np.ones_like(activation), where=used)
    return np.exp2(np.round(np.log2(np.sqrt(ratio))))


def _array(value: ir.Value | None) -> NDArray[Any]:
    array = constant_array(value)
    assert array is not None
    return array


def _set(value: ir.Value | None, array: NDArray[Any]) -> None:
    assert value is not None
    assert value.dtype is not None
    value.const_value = ir.tensor(array.astype(value.dtype.numpy()), name=value.name)
