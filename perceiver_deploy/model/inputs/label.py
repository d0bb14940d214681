"""The label of a clip, as one of its modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict
from torch import Tensor, nn


@dataclass(frozen=True)
class LabelInput:
    """Class probabilities as one token."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    classes: int
    kind: Literal["label"] = "label"


class LabelInputAdapter(nn.Module):
    """Class probabilities [batch, classes] as one token [batch, 1, classes]."""

    def __init__(self, config: LabelInput) -> None:
        super().__init__()
        self.channels = config.classes

    def forward(self, label: Tensor) -> Tensor:
        """Add the axis of tokens."""
        return label[:, None]
