"""Losses that several recipes share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from perceiver_deploy.train.batch import Batch

LABEL_SMOOTHING = 0.05


def classification_loss(outputs: dict[str, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy of `logits` [batch, classes] and targets [batch], with label smoothing."""
    return functional.cross_entropy(outputs["logits"], batch.targets, label_smoothing=LABEL_SMOOTHING)
