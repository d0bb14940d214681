"""What is reported of a graph in half precision."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_deploy.bundle.recipe import summarize_reasons


@dataclass(frozen=True)
class HalfReport:
    """The nodes that stay in float32, each with the reason, and the share of the FLOPs that are in half precision.

    FLOPs are counted with the axes at their `opt` sizes. A reason is `KIND` or `KIND: DETAIL`.
    """

    kept: dict[str, str]
    flops_share: float

    def lines(self) -> list[str]:
        """For people: what is in half precision, and how many nodes are not."""
        share = f"{self.flops_share:.1%} of the operations in half precision, none in INT8: no sum can saturate"
        return [share, f"nodes in float32: {summarize_reasons(self.kept)}"]
