"""What a recipe is: a model, a data set and the numbers of the training run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_deploy.model.config import PerceiverConfig

Augment = Callable[[dict[str, Tensor], torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """AdamW, linear warm-up, then cosine decay to zero; gradients clipped to `clip_norm`.

    `augment` changes a batch of inputs with the generator it is given, so that a run can be resumed exactly.
    """

    name: str
    data: str
    config: PerceiverConfig
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    augment: Augment | None = None

    def rate_factor(self, step: int) -> float:
        """Factor on the learning rate at a step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
