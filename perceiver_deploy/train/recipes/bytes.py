"""Recipe `bytes`: fill in masked bytes of CPython's help topics."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from perceiver_deploy.data.sets.topics import IGNORED, LENGTH, PREPROCESSING
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.text import TextInput
from perceiver_deploy.train.baselines.byte_ngrams import fit_ngrams
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.local_attention import attend_locally
from perceiver_deploy.train.recipe import Recipe

_MASKED_SHARE = 0.2  # more than in the test, for more targets a step


def mask_anew(batch: Batch, generator: torch.Generator) -> Batch:
    """Put the masked bytes back and mask others."""
    ids = torch.where(batch.targets == IGNORED, batch.inputs["input_ids"], batch.targets)
    masked = (torch.rand(ids.shape, generator=generator) < _MASKED_SHARE) & (ids >= PREPROCESSING.byte_offset)
    inputs = batch.inputs | {"input_ids": ids.masked_fill(masked, PREPROCESSING.mask_id)}
    return Batch(inputs, ids.masked_fill(~masked, IGNORED))


def masked_loss(outputs: dict[str, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy at the masked places."""
    masked = batch.targets != IGNORED
    return functional.cross_entropy(outputs["logits"][masked], batch.targets[masked])


RECIPE = Recipe(
    name="bytes",
    data="bytes",
    config=PerceiverConfig(
        task="masked_lm",
        input=TextInput(vocab_size=262, max_length=LENGTH, channels=64),
        encoder=EncoderConfig(
            num_latents=64,
            d_latents=96,
            num_blocks=1,
            num_self_attends_per_block=2,
            cross_attention=AttentionConfig(num_heads=8, qk_channels=96, v_channels=96),
            self_attention=AttentionConfig(num_heads=8, widening_factor=2),
        ),
        decoder=DecoderConfig(
            num_queries=LENGTH,
            query_channels=64,
            cross_attention=AttentionConfig(num_heads=8, qk_channels=96, v_channels=96),
            output_channels=None,
        ),
        initializer_range=0.1,
        preprocessing=PREPROCESSING,
    ),
    steps=4000,
    batch_size=24,
    learning_rate=2e-3,
    weight_decay=0.01,
    warmup_steps=100,
    baseline=fit_ngrams,
    loss=masked_loss,
    transform=mask_anew,
    initialize=attend_locally,
)
