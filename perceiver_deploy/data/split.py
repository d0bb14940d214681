"""Labelled examples, ready for a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays


@dataclass(frozen=True)
class Split:
    """Inputs by name and targets, first axis the examples; `shared` inputs go with every batch as they are."""

    inputs: Arrays
    targets: NDArray[Any]
    shared: Arrays = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, index: slice | NDArray[np.int64]) -> Arrays:
        """Inputs of some examples, as a model takes them."""
        return {name: array[index] for name, array in self.inputs.items()} | self.shared

    def spread(self, count: int) -> Split:
        """The examples themselves, or as many of them as `count` that lie evenly over all."""
        taken = spread_rows(len(self), count)
        return Split({name: array[taken] for name, array in self.inputs.items()}, self.targets[taken], self.shared)


def spread_rows(rows: int, count: int) -> NDArray[np.int64]:
    """At most `count` of some rows, evenly over all: a set may be ordered by class."""
    taken = min(rows, count)
    return np.arange(taken) * rows // max(1, taken)
