"""INT8 weights whose products cannot saturate on processors without INT8 dot products.

On x86 processors without VNNI, engines multiply with `vpmaddubsw`: it adds two neighbouring products a0 w0 + a1 w1, of
a in 0..255 and w in -128..127, in 16 bits, and what is beyond 32,767 is cut off. Signed activations are moved up by 128
first, so every operand is near 128 and two large neighbours of one sign are enough.

The rule: in each output channel, the positive parts of any two neighbouring weights sum to at most 128, and so do the
negative parts. Then no sum of two products is beyond 255 * 128 = 32,640, whatever the activations are; weights of
opposite signs cannot overflow, and sums of 32 bits are exact. 129 would allow 255 * 129 = 32,895. onnxruntime pairs
weights (2j, 2j+1); OpenVINO's oneDNN cuts long columns in two, whose second half may begin at an odd place: so all
neighbours are held to it.

It takes scales that are about 1.4 times larger: 3 dB of the weights' SQNR, where halving all weights takes 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from perceiver_deploy.errors import ExportError
from perceiver_deploy.export.calibration.thresholds import LEVELS
from perceiver_deploy.export.int8.pair_placement import dequantizer_of
from perceiver_deploy.export.int8.rules import gemms

MOST_NEIGHBOURS = 128
"""What two neighbouring weights of one sign may sum to."""
_ENLARGE = 1 + 2.0**-10
"""Rounding adds at most 1 to a sum of 128, so that scales are enlarged by less than 1 % in all."""

WeightScales = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Scales [channels] of a weight [inputs, channels]."""


def full_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales [channels] that use all levels for the largest weight of each channel; 1 for a channel of zeros.

    Args:
        weight: [inputs, channels].

    Raises:
        ExportError: it holds values that are not finite.
    """
    if not np.isfinite(weight).all():
        raise ExportError("A weight holds values that are not finite, so it has no scale. Check the checkpoint.")
    scales = (np.abs(weight).max(0, initial=0.0) / LEVELS).astype(np.float32)
    return np.where(scales > 0, scales, np.float32(1))


def safe_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The least scales [channels] with which the rounded weights keep the rule.

    Args:
        weight: [inputs, channels].

    Raises:
        ExportError: as `full_scales`.
    """
    needed = _neighbours(weight).max(0, initial=0.0) / MOST_NEIGHBOURS
    scales = np.maximum(full_scales(weight), needed.astype(np.float32))
    beyond = np.arange(len(scales))
    while (beyond := beyond[saturating_channels(round_weight(weight[:, beyond], scales[beyond]))]).size:
        scales[beyond] *= np.float32(_ENLARGE)
    return scales


def round_weight(weight: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """The int8 weight [inputs, channels] of a float one and its scales [channels]."""
    return np.clip(np.rint(weight / scales), -LEVELS, LEVELS).astype(np.int8)


def saturating_channels(weight: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Which channels of an int8 weight [inputs, channels] break the rule."""
    return np.asarray(_neighbours(weight.astype(np.int16)).max(0, initial=0) > MOST_NEIGHBOURS)


def _neighbours(weight: NDArray[Any]) -> NDArray[Any]:
    """Sums of the parts of one sign of neighbouring weights: [2 * (inputs - 1), channels]."""
    parts = np.maximum(weight, 0), np.maximum(-weight, 0)
    return np.concatenate([part[:-1] + part[1:] for part in parts])


@dataclass(frozen=True)
class SaturationReport:
    """Which quantised products could saturate where a processor has no INT8 dot products.

    Attributes:
        weights: products with a stored weight that breaks the rule, and how many of its channels do.
        activations: products of two activations, which no rule protects. Sessions of this package see to it that
            runtimes compute them exactly (`runtimes.onnxruntime`, `runtimes.openvino`).
    """

    weights: dict[str, str]
    activations: tuple[str, ...]

    @property
    def safe(self) -> bool:
        """Whether every weight keeps the rule."""
        return not self.weights

    def line(self) -> str:
        """For people."""
        if self.safe:
            return f"no sum with a weight can saturate, on any processor{self._of_activations()}"
        return (
            f"sums of {len(self.weights)} weight GEMMs can saturate on x86 processors without INT8 dot products "
            f"(the first is {next(iter(self.weights))}){self._of_activations()}"
        )

    def _of_activations(self) -> str:
        if not self.activations:
            return ""
        return (
            f"; {len(self.activations)} products of two activations are exact in sessions of this package, not in "
            "OpenVINO's own INT8 on processors without INT8 dot products"
        )


def find_saturation(model: ir.Model) -> SaturationReport:
    """Hold every quantised product of a Q/DQ graph to the rule."""
    weights, activations = dict[str, str](), []
    for node in gemms(model):
        pairs = [dequantizer_of(value) for value in node.inputs[:2]]
        if None in pairs:
            continue
        stored = stored_weight(node)
        if stored is None and (pair := pairs[1]) is not None and (value := pair.inputs[0]) is not None:
            if value.is_initializer():
                weights[str(node.name)] = "a weight of another layout, which the rule was not applied to"
            else:
                activations.append(str(node.name))
        elif stored is not None and (count := int(saturating_channels(stored.levels).sum())):
            weights[str(node.name)] = f"{count} of {stored.levels.shape[1]} channels"
    return SaturationReport(weights, tuple(activations))


@dataclass(frozen=True)
class StoredWeight:
    """The int8 weight of a product as [inputs, channels], and the node that dequantises it."""

    dequantize: ir.Node
    levels: NDArray[np.int8]
    transposed: bool

    def store(self, levels: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        """Replace it, and the scale of each channel."""
        stored, scale = self.dequantize.inputs[0], self.dequantize.inputs[1]
        assert stored is not None
        assert scale is not None
        stored.const_value = ir.tensor(levels.T if self.transposed else levels, name=stored.name)
        scale.const_value = ir.tensor(scales, name=scale.name)


def stored_weights(model: ir.Model) -> Iterator[tuple[ir.Node, StoredWeight]]:
    """The stored weights of quantised products, each once, with a product that reads it."""
    seen = set[ir.Node]()
    for node in gemms(model):
        weight = stored_weight(node)
        if weight is not None and weight.dequantize not in seen:
            seen.add(weight.dequantize)
            yield node, weight


def stored_weight(node: ir.Node) -> StoredWeight | None:
    """The second operand of a product, where it is a matrix in int8 with a scale for each output channel."""
    dequantize = node.inputs[1].producer() if node.inputs[1] is not None else None
    stored = None if dequantize is None or dequantize.op_type != "DequantizeLinear" else dequantize.inputs[0]
    if dequantize is None or stored is None or stored.const_value is None or len(stored.const_value.shape) != 2:
        return None
    transposed = bool(node.attributes.get_int("transB", 0))
    if dequantize.attributes.get_int("axis", 1) != (0 if transposed else 1):
        return None
    levels = stored.const_value.numpy()
    return StoredWeight(dequantize, levels.T if transposed else levels, transposed)
