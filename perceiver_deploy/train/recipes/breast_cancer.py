"""Recipe `breast-cancer`: tell tumours apart from a set of features, any of which may be missing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.sets.breast_cancer import LABELS
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.entities import EntitiesInput
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.losses import LABEL_SMOOTHING, classification_loss
from perceiver_deploy.train.recipe import Baseline, Recipe

_MOST_MISSING = 0.8
_ENTITY_WEIGHT = 0.3
_FEATURES = 30


def _loss(outputs: dict[str, Tensor], batch: Batch) -> Tensor:
    """Loss of the set and of each entity that is there, whose target is the class of the set."""
    logits = outputs["entity_logits"]
    present = batch.inputs["attention_mask"] != 0
    targets = batch.targets[:, None].expand(present.shape)
    entities = functional.cross_entropy(logits[present], targets[present], label_smoothing=LABEL_SMOOTHING)
    return classification_loss(outputs, batch) + _ENTITY_WEIGHT * entities


def _mask(batch: Batch, generator: torch.Generator) -> Batch:
    """Take features away: of each set a share drawn from 0 to `_MOST_MISSING`."""
    entities = batch.inputs["entities"]
    share = _MOST_MISSING * torch.rand(len(entities), 1, generator=generator)
    mask = torch.rand(entities.shape[:2], generator=generator) >= share
    return Batch({"entities": entities, "attention_mask": mask.long()}, batch.targets)


def _logistic_regression(data: DataSet) -> Baseline:
    """On the standardised features; it gives the set's answer for each entity."""
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(max_iter=1000).fit(data.train.inputs["entities"][..., 0], data.train.targets)

    def run(inputs: Arrays) -> Arrays:
        features = inputs["entities"][..., 0]
        logits = classifier.predict_log_proba(features)
        return {"logits": logits, "entity_logits": np.repeat(logits[:, None], features.shape[1], axis=1)}

    return Baseline("logistic regression", run)


RECIPE = Recipe(
    name="breast-cancer",
    data="breast-cancer",
    config=PerceiverConfig(
        task="entities",
        input=EntitiesInput(features=1, channels=48, entities=_FEATURES, max_entities=_FEATURES),
        encoder=EncoderConfig(
            num_latents=4,
            d_latents=48,
            num_blocks=1,
            num_self_attends_per_block=1,
            cross_attention=AttentionConfig(num_heads=4),
            self_attention=AttentionConfig(num_heads=4),
        ),
        decoder=DecoderConfig(
            num_queries=1,
            query_channels=48,
            cross_attention=AttentionConfig(num_heads=1),
            output_channels=len(LABELS),
        ),
        labels=LABELS,
        dropout=0.1,
    ),
    steps=800,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=0.1,
    warmup_steps=50,
    baseline=_logistic_regression,
    loss=_loss,
    transform=_mask,
    ema_decay=0.99,
)
