"""The grid of shapes and masks that parity is judged on, and inputs for each of its cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import Axis, Signature, TensorSpec, evaluate_size, opt_sizes
from perceiver_deploy.bundle.preprocessing import FlowPreprocessing, ImagePreprocessing, Preprocessing
from perceiver_deploy.data.media.flow import extract_patches

Mask = Literal["none", "padded", "half", "fully masked row", "all masked"]
Content = Literal["random", "zeros", "huge", "tiny", "repeated"]
_MASK_NAME = "attention_mask"
_HUGE, _TINY = 1e3, 1e-6
OUT_OF_RANGE: Content = "huge"
"""Name of the case whose values are beyond any that a quantised graph was calibrated on."""


@dataclass(frozen=True)
class Case:
    """One point of the grid: a size for every axis, how the attention mask is filled, and what the values are like."""

    name: str
    sizes: dict[str, int]
    mask: Mask = "none"
    content: Content = "random"

    def __str__(self) -> str:
        """`odd (batch 3, height 5, width 7)`."""
        return f"{self.name} ({', '.join(f'{name} {size}' for name, size in self.sizes.items())})"

    def shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """The shape of an input at this case."""
        return tuple(evaluate_size(size, self.sizes) for size in spec.shape)


def shape_grid(signature: Signature) -> list[Case]:
    """Cases from the most to the least telling: opt, odd, masks, min, max (or beyond opt where nothing bounds it)."""
    free = {name: axis for name, axis in signature.axes.items() if name != "batch"}
    opt = opt_sizes(free)
    odd = {name: _odd_size(axis, offset) for offset, (name, axis) in enumerate(free.items())}
    most = {name: _largest_size(axis) for name, axis in free.items()}
    cases = [Case("opt", {"batch": 1, **opt}), Case("odd", {"batch": 3, **odd})]
    if any(spec.name == _MASK_NAME for spec in signature.stage.inputs):
        cases += [Case(f"odd, {mask}", {"batch": 3, **odd}, mask) for mask in ("padded", "half", "fully masked row")]
    cases.append(Case("min", {"batch": 2, **{name: _rounded_up(axis.min, axis) for name, axis in free.items()}}))
    if most != opt:
        bounded = all(axis.max is not None for axis in free.values())
        cases.append(Case("max" if bounded else "beyond opt", {"batch": 1, **most}))
    return cases


def adversarial_cases(signature: Signature) -> list[Case]:
    """Inputs that no data set holds, at the odd sizes: all zeros, huge, tiny, one value repeated, all masked.

    Huge values are a thousand times the usual ones, as of data that someone forgot to scale; tiny ones a millionth.
    Integers are at their ends instead. There is no tiny case where all inputs are integers.
    """
    contents: list[Content] = ["zeros", OUT_OF_RANGE, "repeated"]
    if any(spec.dtype.startswith("float") for spec in signature.stage.inputs):
        contents.append("tiny")
    sizes = {**shape_grid(signature)[1].sizes, "batch": 2}
    cases = [Case(content, sizes, content=content) for content in contents]
    if any(spec.name == _MASK_NAME for spec in signature.stage.inputs):
        cases.append(Case("all masked", sizes, "all masked"))
    return cases


def make_inputs(signature: Signature, case: Case, preprocessing: Preprocessing | None, seed: int = 0) -> Arrays:
    """Seeded inputs of a case: pixels uniform over what preprocessing can give, other floats normal, valid integers.

    The second frame of optical flow is the first, moved by a pixel.
    """
    inputs = _random_inputs(signature, case, preprocessing, seed)
    for spec in signature.stage.inputs:
        if spec.name != _MASK_NAME:
            most = None if spec.maximum is None else evaluate_size(spec.maximum, case.sizes)
            inputs[spec.name] = _filled(inputs[spec.name], case.content, spec.minimum, most)
    return inputs


def _filled(array: NDArray[Any], content: Content, least: int | None, most: int | None) -> NDArray[Any]:
    """An array of random values made zero, huge, tiny or all one value, as far as its bounds allow."""
    if content == "zeros":
        return np.full_like(array, least or 0)
    if content == "repeated":
        return np.full_like(array, array.flat[0])
    if content == "huge":
        return array * array.dtype.type(_HUGE) if most is None else np.full_like(array, most)
    if content == "tiny" and most is None:
        return array * array.dtype.type(_TINY)
    return array


def _random_inputs(signature: Signature, case: Case, preprocessing: Preprocessing | None, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    inputs: Arrays = {}
    for spec in signature.stage.inputs:
        shape = case.shape(spec)
        if spec.name == _MASK_NAME:
            inputs[spec.name] = _mask(shape, case.mask)
        elif spec.minimum is not None and spec.maximum is not None:
            most = evaluate_size(spec.maximum, case.sizes)
            inputs[spec.name] = rng.integers(spec.minimum, most, shape, dtype=spec.dtype, endpoint=True)
        elif isinstance(preprocessing, ImagePreprocessing):
            inputs[spec.name] = _pixels(shape, preprocessing, rng)
        elif isinstance(preprocessing, FlowPreprocessing):
            inputs[spec.name] = _moving_pixels(shape, rng)
        else:
            inputs[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
    return inputs


def _odd_size(axis: Axis, offset: int) -> int:
    """About five eighths of opt, odd where the axis allows, different for each axis."""
    size = max(axis.opt * 5 // 8, axis.min) | 1
    size += 2 * offset
    size = _rounded_up(size, axis)
    return size if axis.max is None else min(size, _largest_size(axis))


def _largest_size(axis: Axis) -> int:
    if axis.max is not None:
        return axis.max // axis.multiple_of * axis.multiple_of
    return _rounded_up(-(-axis.opt * 5 // 4), axis)


def _rounded_up(size: int, axis: Axis) -> int:
    return -(-size // axis.multiple_of) * axis.multiple_of


def _mask(shape: tuple[int, ...], kind: Mask) -> NDArray[np.int64]:
    mask = np.ones(shape, np.int64)
    length = shape[-1]
    if kind == "padded":
        for row in range(shape[0]):
            mask[row, max(1, length - row * length // 4) :] = 0
    elif kind == "half":
        mask[:, 1::2] = 0
    elif kind == "fully masked row":
        mask[0] = 0
    elif kind == "all masked":
        mask[:] = 0
    return mask


def _pixels(shape: tuple[int, ...], preprocessing: ImagePreprocessing, rng: np.random.Generator) -> NDArray[np.float32]:
    mean = np.array(preprocessing.mean)[:, None, None]
    std = np.array(preprocessing.std)[:, None, None]
    return ((rng.random(shape) - mean) / std).astype(np.float32)


def _moving_pixels(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    batch, _, _, height, width = shape
    first = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    return extract_patches(np.stack([first, np.roll(first, 1, axis=2)], axis=1))
