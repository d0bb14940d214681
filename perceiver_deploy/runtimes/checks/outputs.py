"""Whether outputs are such as the manifest says: names, dtypes, ranks and sizes, at every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import TensorSpec, evaluate_size, shape_text
from perceiver_deploy.errors import ParityError

_REMEDY = "This runtime does not compute this graph as it is written: use another runtime, or another version of it."


class OutputCheck:
    """Refuses outputs that a runtime gives in another shape or dtype than the manifest says.

    What is expected is worked out once for runs of the same sizes in a row, so that a check takes a microsecond.
    Thread-safe.
    """

    def __init__(self, specs: Sequence[TensorSpec], *, double: bool = False) -> None:
        """`double`: what the specs call float32 is float64."""
        self._specs = [
            (spec, np.dtype("float64" if double and spec.dtype == "float32" else spec.dtype)) for spec in specs
        ]
        self._last: tuple[Mapping[str, int] | None, list[tuple[TensorSpec, np.dtype[np.generic], _Shape]]] = None, []

    def __call__(self, outputs: Arrays, sizes: Mapping[str, int], runtime: str) -> Arrays:
        """Check them, and return them; `sizes` are those of the axes of the inputs.

        Raises:
            ParityError: on the first problem found.
        """
        last = self._last
        if last[0] is not sizes:
            self._last = last = sizes, [(spec, dtype, _expected(spec, sizes)) for spec, dtype in self._specs]
        for spec, dtype, shape in last[1]:
            array = outputs[spec.name]
            if array.shape != shape or array.dtype != dtype:
                _refuse(array, spec, dtype, shape, runtime)
        return outputs


_Shape = tuple[int | None, ...]
"""None for a size that the inputs do not say."""


def _expected(spec: TensorSpec, sizes: Mapping[str, int]) -> _Shape:
    return tuple(_size(size, sizes) for size in spec.shape)


def _size(size: int | str, sizes: Mapping[str, int]) -> int | None:
    try:
        return evaluate_size(size, sizes)
    except KeyError:
        return None


def _refuse(
    array: NDArray[np.generic], spec: TensorSpec, dtype: np.dtype[np.generic], shape: _Shape, runtime: str
) -> None:
    """Say what differs, unless it is only a size that the inputs do not say."""
    if array.dtype != dtype:
        raise ParityError(
            f"{runtime} gives output {spec.name!r} in {array.dtype}; the manifest says {dtype}. {_REMEDY}"
        )
    if len(array.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(array.shape, shape, strict=True)
    ):
        return
    known = f" = {list(shape)}" if None not in shape else ""
    raise ParityError(
        f"{runtime} gives output {spec.name!r} with shape {list(array.shape)}; the manifest says "
        f"{shape_text(spec)}{known}. {_REMEDY}"
    )
