"""The accuracy contract: by how much a metric may fall, and whether it was kept."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perceiver_deploy.errors import UsageError
from perceiver_deploy.evaluate.accuracy.agreement import Sqnr
from perceiver_deploy.evaluate.accuracy.losses import Loss

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

    def bound(self, drop: Loss) -> float:
        """What a metric may lose, in its unit (shares of 1 for "%")."""
        if self.relative:
            return self.amount / 100 * abs(drop.eager)
        return self.amount / 100 if drop.unit == "%" else self.amount

    def excess(self, found: Loss | Sqnr) -> float:
        """By how much it is beyond its bound, as a share of eager's value; that of an SQNR is the same for all."""
        if isinstance(found, Sqnr):
            return found.excess
        share = (found.drop - self.bound(found)) / (abs(found.eager) or 1.0)
        return share if math.isfinite(share) else math.inf

    def allows(self, found: Loss | Sqnr) -> bool:
        """Whether the mean over the held-out examples fell by no more, an SQNR is not too low. A NaN is not allowed."""
        if isinstance(found, Sqnr):
            return found.excess <= 0
        return found.drop <= self.bound(found) + _ROUNDING


@dataclass(frozen=True)
class Judgement:
    """By runtime, what each metric lost, and where agreement with eager is judged, the SQNR of class scores."""

    found: Mapping[str, Sequence[Loss | Sqnr]]

    def breaches(self, contract: MaxDrop) -> list[str]:
        """What is beyond its bound, in words."""
        return [f"{one.text()} in {runtime}" for runtime, one in self._all() if not contract.allows(one)]

    def excess(self, contract: MaxDrop) -> float:
        """By how much the worst is beyond its bound, as a share of eager's value."""
        return max(contract.excess(one) for _, one in self._all())

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """A plain dict: runtimes, and in each the metrics."""
        return {runtime: [one.to_json() for one in found] for runtime, found in self.found.items()}

    def lines(self) -> list[str]:
        """For people: one line a metric and runtime."""
        return [f"{runtime}: {_with_test(one)}" for runtime, one in self._all()]

    def _all(self) -> list[tuple[str, Loss | Sqnr]]:
        return [(runtime, one) for runtime, found in self.found.items() for one in found]


def _with_test(found: Loss | Sqnr) -> str:
    if isinstance(found, Sqnr):
        return found.text()
    test = "" if found.test is None else f", McNemar p {found.test.p_value:.2f}"
    return f"{found.text()}{test}, {found.examples} rows"
