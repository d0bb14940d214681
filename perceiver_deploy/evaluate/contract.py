"""The accuracy contract: by how much a metric may fall, and whether it was kept."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perceiver_deploy.errors import UsageError
from perceiver_deploy.evaluate.accuracy import Drop

_ROUNDING = 1e-12
"""Of means of floats: two of 400 rows are exactly half a point."""


@dataclass(frozen=True)
class MaxDrop:
    """By how much each metric may fall against eager float32.

    `amount` is in points of a metric in %, in the metric's own unit otherwise (0.5 dB); where `relative`, in per cent
    of eager's value.
    """

    amount: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str) -> MaxDrop:
        """`0.5` (points), or `1%` (relative).

        Raises:
            UsageError: neither.
        """
        number = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
        if number is None:
            raise UsageError(
                f"max-drop is {text!r}; expected a number that is not negative: 0.5 for half a point (half a unit of a "
                "metric that is not in %), 1% for one per cent of what eager reaches."
            )
        return cls(float(number[1]), relative=bool(number[2]))

    def __str__(self) -> str:
        return f"{self.amount:g}%" if self.relative else f"{self.amount:g}"

    def bound(self, drop: Drop) -> float:
        """What a metric may lose, in its unit (shares of 1 for "%")."""
        if self.relative:
            return self.amount / 100 * abs(drop.eager)
        return self.amount / 100 if drop.unit == "%" else self.amount

    def allows(self, drop: Drop) -> bool:
        """Whether the mean over the held-out examples fell by no more. A NaN is not allowed."""
        return drop.drop <= self.bound(drop) + _ROUNDING


@dataclass(frozen=True)
class Judgement:
    """What each metric lost in each runtime that it was judged in."""

    drops: Mapping[str, Sequence[Drop]]

    def breaches(self, contract: MaxDrop) -> list[str]:
        """What fell by more than is allowed, in words."""
        return [
            f"{drop.text()} in {runtime}"
            for runtime, drops in self.drops.items()
            for drop in drops
            if not contract.allows(drop)
        ]

    def excess(self, contract: MaxDrop) -> float:
        """By how much the worst metric is beyond its bound, as a share of eager's value."""
        shares = [
            (drop.drop - contract.bound(drop)) / (abs(drop.eager) or 1.0)
            for drops in self.drops.values()
            for drop in drops
        ]
        return max(share if math.isfinite(share) else math.inf for share in shares)

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """A plain dict: runtimes, and in each the metrics."""
        return {runtime: [drop.to_json() for drop in drops] for runtime, drops in self.drops.items()}

    def lines(self) -> list[str]:
        """For people: one line a metric and runtime."""
        return [f"{runtime}: {_with_test(drop)}" for runtime, drops in self.drops.items() for drop in drops]


def _with_test(drop: Drop) -> str:
    test = "" if drop.test is None else f", McNemar p {drop.test.p_value:.2f}"
    return f"{drop.text()}{test}, {drop.examples} rows"
