"""What a graph pass is: a rewrite that says what it requires, how often it fired and what it ensures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import onnx_ir as ir


class GraphPass(ABC):
    """One rewrite of a graph, in place. What it needs beside the graph is given to its constructor.

    Every pass ensures the same function and the same names of inputs and outputs. It may leave nodes that nothing
    reads, which the driver removes. `requires` and `ensures` may take long: see `driver.CHECK`.
    """

    name: ClassVar[str]
    """What it did, as a bundle calls its count."""
    recorded: ClassVar[bool] = True
    """Whether its count is written into the graph's metadata."""

    def requires(self, model: ir.Model) -> None:
        """Raise a PreconditionError if the graph is not in the form that the pass reads; by default any will do."""
        return

    @abstractmethod
    def run(self, model: ir.Model) -> int:
        """Rewrite the graph; returns how often the pass fired."""

    @abstractmethod
    def ensures(self, model: ir.Model) -> None:
        """Raise a PostconditionError if the graph, once swept, is not as the pass leaves it."""


class PassByWay(GraphPass):
    """A pass that rewrites in one of several ways, whose counts are kept apart."""

    @abstractmethod
    def run_by_way(self, model: ir.Model) -> dict[str, int]:
        """Rewrite the graph; returns how often the pass fired by the way it did, as a bundle calls it."""

    def run(self, model: ir.Model) -> int:
        """The ways' counts in sum."""
        return sum(self.run_by_way(model).values())
