"""Recipe `films-video`: which shot of three films a clip of 4 frames is from."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.sets.film_sets import PICTURES, SHOT_LABELS
from perceiver_deploy.data.sets.films import FRAMES, SIZE
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.video import VideoInput
from perceiver_deploy.model.positions import FourierPositions
from perceiver_deploy.train.baselines.linear import logistic_regression
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.recipe import Baseline, Recipe


def _mirror_and_relight(batch: Batch, generator: torch.Generator) -> Batch:
    """Mirror clips at random, and change contrast and brightness."""
    image = batch.inputs["image"]
    mirrored = torch.rand(len(image), 1, 1, 1, 1, generator=generator) < 0.5
    image = torch.where(mirrored, image.flip(-1), image)
    contrast = 0.8 + 0.4 * torch.rand(len(image), 1, 1, 1, 1, generator=generator)
    brightness = 0.1 * torch.randn(len(image), 1, 1, 1, 1, generator=generator)
    return Batch({"image": ((image - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)}, batch.targets)


def _mean_colours(data: DataSet) -> Baseline:
    def features(inputs: Arrays) -> NDArray[Any]:
        return inputs["image"].mean(axis=(3, 4)).reshape(len(inputs["image"]), -1)

    return logistic_regression("logistic regression on each frame's mean colour", features, data)


RECIPE = Recipe(
    name="films-video",
    data="films-video",
    config=PerceiverConfig(
        task="video_classification",
        input=VideoInput(FourierPositions(4, (4, 4, 4)), patch_size=8, clip=(FRAMES, SIZE, SIZE)),
        encoder=EncoderConfig(
            num_latents=16,
            d_latents=64,
            num_blocks=2,
            num_self_attends_per_block=2,
            cross_attention=AttentionConfig(num_heads=2, qk_channels=64, v_channels=64),
            self_attention=AttentionConfig(num_heads=4),
        ),
        decoder=DecoderConfig(
            num_queries=1, query_channels=64, cross_attention=AttentionConfig(), output_channels=len(SHOT_LABELS)
        ),
        labels=SHOT_LABELS,
        preprocessing=PICTURES,
    ),
    steps=1500,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=0.1,
    warmup_steps=60,
    baseline=_mean_colours,
    transform=_mirror_and_relight,
)
