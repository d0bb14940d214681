"""Recipe `sentiment`: tell whether people found a film snippet positive, from its bytes."""

from __future__ import annotations

import torch

from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.sets.snippets import LENGTH, PREPROCESSING, SENTIMENTS
from perceiver_deploy.model.config import AttentionConfig, EncoderConfig, MeanDecoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.text import TextInput
from perceiver_deploy.train.baselines.character_ngrams import fit_classifier
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.local_attention import attend_locally
from perceiver_deploy.train.recipe import Baseline, Recipe

_HIDDEN_SHARE = 0.1


def hide_bytes(batch: Batch, generator: torch.Generator) -> Batch:
    """Mask a tenth of the bytes, and leave out the padding that no text of the batch needs."""
    mask = batch.inputs["attention_mask"]
    longest = int(mask.sum(1).max())
    ids = batch.inputs["input_ids"][:, :longest]
    hidden = (torch.rand(ids.shape, generator=generator) < _HIDDEN_SHARE) & (ids >= PREPROCESSING.byte_offset)
    changed = {"input_ids": ids.masked_fill(hidden, PREPROCESSING.mask_id), "attention_mask": mask[:, :longest]}
    return Batch(batch.inputs | changed, batch.targets)


def _character_ngrams(data: DataSet) -> Baseline:
    classifier = fit_classifier(data.train.inputs, data.train.targets)
    return Baseline(
        "logistic regression on character n-grams",
        lambda inputs: {"logits": classifier(inputs)},
    )


RECIPE = Recipe(
    name="sentiment",
    data="sentiment",
    config=PerceiverConfig(
        task="text_classification",
        input=TextInput(vocab_size=262, max_length=LENGTH, channels=64),
        encoder=EncoderConfig(
            num_latents=32,
            d_latents=96,
            num_blocks=1,
            num_self_attends_per_block=2,
            cross_attention=AttentionConfig(num_heads=8, qk_channels=96, v_channels=96),
            self_attention=AttentionConfig(num_heads=8),
        ),
        decoder=MeanDecoderConfig(output_channels=len(SENTIMENTS), norm=True),
        dropout=0.1,
        initializer_range=0.1,
        labels=SENTIMENTS,
        preprocessing=PREPROCESSING,
    ),
    steps=2500,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=0.05,
    warmup_steps=100,
    baseline=_character_ngrams,
    transform=hide_bytes,
    initialize=attend_locally,
)
