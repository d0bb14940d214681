"""Recipe `films-video`: which way the window pans over a film, from clips of 4 frames."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.film_sets import PAN_LABELS, PICTURES
from perceiver_deploy.data.films import FRAMES, SIZE
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.input_config import FourierPositions, VideoInput
from perceiver_deploy.train.baselines import logistic_regression
from perceiver_deploy.train.recipe import Baseline, Batch, Recipe

_STILL, _LEFT, _RIGHT, _UP, _DOWN = range(len(PAN_LABELS))


def _mirror_and_relight(batch: Batch, generator: torch.Generator) -> Batch:
    """Mirror clips at random, which swaps left and right or up and down, and change contrast and brightness."""
    image, targets = batch.inputs["image"], batch.targets
    for axis, swapped in ((-1, [_STILL, _RIGHT, _LEFT, _UP, _DOWN]), (-2, [_STILL, _LEFT, _RIGHT, _DOWN, _UP])):
        mirrored = torch.rand(len(image), generator=generator) < 0.5
        image = torch.where(mirrored[:, None, None, None, None], image.flip(axis), image)
        targets = torch.where(mirrored, torch.tensor(swapped)[targets], targets)
    contrast = 0.6 + 0.8 * torch.rand(len(image), 1, 1, 1, 1, generator=generator)
    brightness = 0.2 * torch.randn(len(image), 1, 1, 1, 1, generator=generator)
    return Batch({"image": ((image - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)}, targets)


def _mean_colours(data: DataSet) -> Baseline:
    def features(inputs: Arrays) -> NDArray[Any]:
        return inputs["image"].mean(axis=(3, 4)).reshape(len(inputs["image"]), -1)

    return logistic_regression("logistic regression on each frame's mean colour", features, data)


RECIPE = Recipe(
    name="films-video",
    data="films-video",
    config=PerceiverConfig(
        task="video_classification",
        input=VideoInput(FourierPositions(6, (4, 16, 16)), patch_size=4, clip=(FRAMES, SIZE, SIZE)),
        encoder=EncoderConfig(
            num_latents=24,
            d_latents=96,
            num_blocks=2,
            num_self_attends_per_block=2,
            cross_attention=AttentionConfig(num_heads=2, qk_channels=64, v_channels=96),
            self_attention=AttentionConfig(num_heads=4),
            num_cross_attentions=2,
        ),
        decoder=DecoderConfig(
            num_queries=1, query_channels=64, cross_attention=AttentionConfig(), output_channels=len(PAN_LABELS)
        ),
        labels=PAN_LABELS,
        preprocessing=PICTURES,
    ),
    steps=3000,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=0.05,
    warmup_steps=200,
    baseline=_mean_colours,
    transform=_mirror_and_relight,
)
