"""A batch of training examples."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Inputs by name as the model takes them, and targets [examples, ...]."""

    inputs: dict[str, Tensor]
    targets: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch({name: tensor.to(device) for name, tensor in self.inputs.items()}, self.targets.to(device))

    def part(self, index: int, count: int, shared: Collection[str]) -> Batch:
        """One of `count` parts of the examples; the `shared` inputs stay whole."""
        inputs = {name: tensor if name in shared else tensor[index::count] for name, tensor in self.inputs.items()}
        return Batch(inputs, self.targets[index::count])
