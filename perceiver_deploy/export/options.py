"""Choices about the exported graph."""

from __future__ import annotations

from dataclasses import dataclass

REWRITES = "perceiver_deploy.rewrites"
"""Metadata of an exported model: how many times each rewrite fired, as JSON."""


@dataclass(frozen=True)
class GraphOptions:
    """How a graph is written.

    `reassociate`: let each attention project its small side, where that takes fewer multiply-adds.
    """

    reassociate: bool = True
