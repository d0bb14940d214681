"""Recipe `text-tasks`: sentiment and source of a short text at once, one query a task."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.sets.snippets import TASK_LABELS
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig
from perceiver_deploy.train.baselines.character_ngrams import fit_classifier
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.losses import LABEL_SMOOTHING
from perceiver_deploy.train.recipe import Baseline
from perceiver_deploy.train.recipes import sentiment

_CLASSES = [len(labels) for labels in TASK_LABELS.values()]


def _loss(outputs: dict[str, Tensor], batch: Batch) -> Tensor:
    """Mean of the tasks' cross-entropies, each over its own classes."""
    losses = [
        functional.cross_entropy(outputs["logits"][:, task, :classes], target, label_smoothing=LABEL_SMOOTHING)
        for task, (classes, target) in enumerate(zip(_CLASSES, batch.targets.unbind(1), strict=True))
    ]
    return torch.stack(losses).mean()


def _character_ngrams(data: DataSet) -> Baseline:
    """One classifier a task."""
    classifiers = [fit_classifier(data.train.inputs, target) for target in data.train.targets.T]

    def run(inputs: Arrays) -> Arrays:
        logits = np.full((len(inputs["input_ids"]), len(_CLASSES), max(_CLASSES)), -np.inf)
        for task, classifier in enumerate(classifiers):
            logits[:, task, : _CLASSES[task]] = classifier(inputs)
        return {"logits": logits}

    return Baseline("logistic regression on character n-grams, one per task", run)


RECIPE = dataclasses.replace(
    sentiment.RECIPE,
    name="text-tasks",
    data="text-tasks",
    config=dataclasses.replace(
        sentiment.RECIPE.config,
        task="multitask_text",
        decoder=DecoderConfig(
            num_queries=len(TASK_LABELS),
            query_channels=64,
            cross_attention=AttentionConfig(num_heads=4, qk_channels=96, v_channels=96),
            output_channels=max(_CLASSES),
        ),
        labels=None,
        task_labels=TASK_LABELS,
    ),
    loss=_loss,
    baseline=_character_ngrams,
)
