"""What a recipe is: a model, a data set and the numbers of the training run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.metrics import Run
from perceiver_deploy.data.split import Split
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.tasks.catalogue import PerceiverModel
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.losses import classification_loss

LossFunction = Callable[[dict[str, Tensor], Batch], Tensor]
Transform = Callable[[Batch, torch.Generator], Batch]
Initialize = Callable[[PerceiverModel, Split], None]


@dataclass(frozen=True)
class Baseline:
    """What a model that is not a neural network does on the same data, in its own words, judged by the same metrics."""

    name: str
    run: Run


@dataclass(frozen=True)
class Recipe:
    """AdamW, linear warm-up, then cosine decay to zero; gradients clipped to `clip_norm`.

    `loss` takes outputs and the batch. `transform` changes a batch (augmentation, masking, drawing points) with the
    generator it is given, so that a run can be resumed exactly. With `ema_decay` the checkpoint holds the exponential
    moving average of the weights. `initialize` sets first weights by the training split, unless training starts from a
    checkpoint; `baseline` is fitted on that split.
    A `config` without preprocessing gets that of the data set.
    """

    name: str
    data: str
    config: PerceiverConfig
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    baseline: Callable[[DataSet], Baseline]
    clip_norm: float = 1.0
    ema_decay: float | None = None
    loss: LossFunction = classification_loss
    transform: Transform | None = None
    initialize: Initialize | None = None

    def rate_factor(self, step: int) -> float:
        """Factor on the learning rate at a step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The numbers of the run by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, int | float)}
