"""Recipe `films-audiovisual`: which quarter of a film a clip is from, by its pictures and its sound."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.sets.film_sets import PART_LABELS, PICTURES_AND_SOUND, SAMPLES_PER_PATCH
from perceiver_deploy.data.sets.films import FRAMES, SIZE
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.audio import AudioInput
from perceiver_deploy.model.inputs.multimodal import MultimodalInput
from perceiver_deploy.model.inputs.video import VideoInput
from perceiver_deploy.model.positions import FourierPositions
from perceiver_deploy.train.baselines.linear import logistic_regression
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.recipe import Baseline, Recipe


def _relight_and_change_volume(batch: Batch, generator: torch.Generator) -> Batch:
    """Change contrast, brightness and volume a little, and the sign of the sound at random."""
    image, audio = batch.inputs["image"], batch.inputs["audio"]
    contrast = 0.8 + 0.4 * torch.rand(len(image), 1, 1, 1, 1, generator=generator)
    brightness = 0.1 * torch.randn(len(image), 1, 1, 1, 1, generator=generator)
    volume = torch.exp(0.2 * torch.randn(len(audio), 1, 1, generator=generator))
    sign = 2 * torch.randint(2, (len(audio), 1, 1), generator=generator) - 1
    image = ((image - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
    return Batch({"image": image, "audio": (audio * volume * sign).clamp(-1, 1)}, batch.targets)


def _mean_colours_and_loudness(data: DataSet) -> Baseline:
    def features(inputs: Arrays) -> NDArray[Any]:
        colours = inputs["image"].mean(axis=(3, 4)).reshape(len(inputs["image"]), -1)
        loudness = np.sqrt(np.square(inputs["audio"].reshape(len(colours), FRAMES, -1)).mean(axis=-1))
        return np.concatenate([colours, loudness], axis=1)

    return logistic_regression("logistic regression on each frame's mean colour and loudness", features, data)


RECIPE = Recipe(
    name="films-audiovisual",
    data="films-audiovisual",
    config=PerceiverConfig(
        task="audiovisual_classification",
        input=MultimodalInput(
            {
                "image": VideoInput(FourierPositions(6, (4, 16, 16)), patch_size=8, clip=(FRAMES, SIZE, SIZE)),
                "audio": AudioInput(
                    FourierPositions(16, (64,)),
                    samples=PICTURES_AND_SOUND.samples,
                    samples_per_patch=SAMPLES_PER_PATCH,
                ),
            },
            min_padding=4,
            mask_probabilities={"image": 0.3, "audio": 0.3},
        ),
        encoder=EncoderConfig(
            num_latents=16,
            d_latents=64,
            num_blocks=2,
            num_self_attends_per_block=2,
            cross_attention=AttentionConfig(num_heads=2, qk_channels=64, v_channels=64),
            self_attention=AttentionConfig(num_heads=4),
        ),
        decoder=DecoderConfig(
            num_queries=1, query_channels=64, cross_attention=AttentionConfig(), output_channels=len(PART_LABELS)
        ),
        labels=PART_LABELS,
        preprocessing=PICTURES_AND_SOUND,
    ),
    steps=1200,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=0.1,
    warmup_steps=60,
    baseline=_mean_colours_and_loudness,
    transform=_relight_and_change_volume,
)
