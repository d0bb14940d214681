"""Whether inputs are such as a model takes: names, dtypes, shapes and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.bundle.manifest import Axis, TensorSpec, evaluate_size, shape_text
from perceiver_deploy.errors import InputError


class InputCheck:
    """Refuses inputs that a model does not take, saying what was expected.

    What is said of shapes is worked out once for calls of the same shapes in a row: it would be a tenth of the time of
    a small model. Thread-safe.
    """

    def __init__(self, specs: Sequence[TensorSpec], axes: Mapping[str, Axis]) -> None:
        self._specs = tuple(specs)
        self._dtypes = [(spec.name, np.dtype(spec.dtype)) for spec in specs]
        self._names = {spec.name for spec in specs}
        self._axes = axes
        self._told = [spec for spec in specs if spec.dtype == "int64" and len(spec.shape) == 1 and _is_fixed(spec)]
        self._last: tuple[list[tuple[int, ...]] | None, dict[str, int], list[_Bounds]] | None = None

    def __call__(self, inputs: Mapping[str, NDArray[np.generic]]) -> Mapping[str, int]:
        """Check them, and return the sizes of the axes: the same object for calls of the same shapes in a row.

        Raises:
            InputError: on the first problem found.
        """
        shapes, last = self._shapes(inputs), self._last
        if last is None or last[0] != shapes:
            sizes = self._sizes(inputs)
            self._last = last = shapes, sizes, [] if self._told else self._bounds(sizes)
        _, sizes, bounds = last
        if self._told:
            bounds = self._bounds(sizes | self._values(inputs))
        for bound in bounds:
            bound.check(inputs[bound.name])
        return sizes

    def _values(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, int]:
        """Those that sizes may name."""
        return {f"{spec.name}[{at}]": int(value) for spec in self._told for at, value in enumerate(inputs[spec.name])}

    def _bounds(self, sizes: Mapping[str, int]) -> list[_Bounds]:
        return [_Bounds(spec, sizes) for spec in self._specs if (spec.minimum, spec.maximum) != (None, None)]

    def _shapes(self, inputs: Mapping[str, NDArray[np.generic]]) -> list[tuple[int, ...]] | None:
        """Shapes of all inputs, or None where a name or a dtype is another."""
        if inputs.keys() != self._names:
            return None
        shapes = []
        for name, dtype in self._dtypes:
            array = inputs[name]
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                return None
            shapes.append(array.shape)
        return shapes

    def _sizes(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, int]:
        """Sizes of the axes, where all inputs fit but for their values."""
        expected = ", ".join(spec.name for spec in self._specs)
        if unknown := inputs.keys() - self._names:
            raise InputError(f"There is no input {sorted(unknown)[0]!r}. The inputs are: {expected}.")
        sizes: dict[str, tuple[int, str]] = {}
        for spec in self._specs:
            if spec.name not in inputs:
                raise InputError(f"Input {spec.name!r} is missing. The inputs are: {expected}.")
            _check_array(inputs[spec.name], spec)
            _check_axes(inputs[spec.name].shape, spec, self._axes, sizes)
        found = {name: size for name, (size, _) in sizes.items()}
        for spec in self._specs:
            _check_expressions(inputs[spec.name].shape, spec, found)
        return found


def check_inputs(
    inputs: Mapping[str, NDArray[np.generic]], specs: Sequence[TensorSpec], axes: Mapping[str, Axis]
) -> None:
    """`InputCheck`, once.

    Raises:
        InputError: on the first problem found.
    """
    InputCheck(specs, axes)(inputs)


def axis_sizes(inputs: Mapping[str, NDArray[np.generic]], specs: Sequence[TensorSpec]) -> dict[str, int]:
    """Sizes of the axes that checked inputs have."""
    return {
        str(name): size
        for spec in specs
        for name, size in zip(spec.shape, inputs[spec.name].shape, strict=True)
        if str(name).isidentifier()
    }


def _is_fixed(spec: TensorSpec) -> bool:
    """Whether the number of values is known, which sizes may name."""
    return isinstance(spec.shape[0], int)


def _check_array(array: NDArray[np.generic], spec: TensorSpec) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(f"Input {spec.name!r} is a {type(array).__name__}; expected a NumPy array of {spec.dtype}.")
    if array.dtype != spec.dtype:
        raise InputError(
            f"Input {spec.name!r} has dtype {array.dtype}; expected {spec.dtype}. "
            f"Convert it with array.astype('{spec.dtype}')."
        )
    if array.ndim != len(spec.shape):
        raise InputError(
            f"Input {spec.name!r} has {array.ndim} dimensions {list(array.shape)}; expected {len(spec.shape)}: "
            f"{shape_text(spec)}."
        )


def _check_axes(
    shape: tuple[int, ...], spec: TensorSpec, axes: Mapping[str, Axis], sizes: dict[str, tuple[int, str]]
) -> None:
    for size, wanted in zip(shape, spec.shape, strict=True):
        if isinstance(wanted, int):
            if size != wanted:
                raise InputError(f"Input {spec.name!r} has shape {list(shape)}; expected {shape_text(spec)}.")
            continue
        if wanted not in axes:
            continue
        if problem := axes[wanted].problem(size):
            raise InputError(
                f"Input {spec.name!r} has {wanted} {size} (shape {list(shape)}); expected {problem}. "
                "Change the input's size or use a model made for it."
            )
        bound, first = sizes.setdefault(wanted, (size, spec.name))
        if size != bound:
            raise InputError(f"Inputs {first!r} and {spec.name!r} must have the same {wanted}, got {bound} and {size}.")


def _check_expressions(shape: tuple[int, ...], spec: TensorSpec, sizes: Mapping[str, int]) -> None:
    """Sizes that follow from axes of any input, as `samples/16` does."""
    expected = [evaluate_size(size, sizes) for size in spec.shape]
    if list(shape) != expected:
        raise InputError(f"Input {spec.name!r} has shape {list(shape)}; expected {shape_text(spec)} = {expected}.")


class _Bounds:
    """Of the values of one input, where they have any."""

    def __init__(self, spec: TensorSpec, sizes: Mapping[str, int]) -> None:
        self.name = spec.name
        self._least = spec.minimum
        self._most = None if spec.maximum is None else evaluate_size(spec.maximum, sizes)
        self._as_unsigned = spec.minimum == 0 and spec.dtype == "int64" and self._most is not None

    def check(self, array: NDArray[np.generic]) -> None:
        if array.size == 0:
            return
        # As unsigned numbers, negative ones are the largest.
        if self._as_unsigned and np.maximum.reduce(array.view(np.uint64), axis=None) <= self._most:
            return
        if self._least is not None and (least := int(array.min())) < self._least:
            raise InputError(f"Input {self.name!r} holds the value {least}; expected at least {self._least}.")
        if self._most is not None and (largest := int(array.max())) > self._most:
            raise InputError(f"Input {self.name!r} holds the value {largest}; expected at most {self._most}.")
