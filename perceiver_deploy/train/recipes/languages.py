"""Recipe `languages`: tell five spoken languages apart, from log-mel spectrograms of telephone prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.sets.languages import LANGUAGES, PREPROCESSING
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.audio import AudioInput
from perceiver_deploy.model.inputs.log_mel import LogMel, LogMelSpectrogram
from perceiver_deploy.model.positions import FourierPositions
from perceiver_deploy.train.baselines.linear import logistic_regression
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.recipe import Baseline, Recipe

_LOG_MEL = LogMel(sample_rate=PREPROCESSING.sample_rate, num_mels=40, window=256)
_MAX_GAIN_DB = 6.0
_MOST_PATCHES_DROPPED = 25  # half a second


def _augment(batch: Batch, generator: torch.Generator) -> Batch:
    """Change the loudness, and begin a little later: never later than at a sound's middle."""
    audio, mask = batch.inputs["audio"], batch.inputs["attention_mask"]
    patch = PREPROCESSING.samples_per_patch
    most = torch.minimum(mask.sum(1) // 2, torch.tensor(_MOST_PATCHES_DROPPED))
    dropped = (torch.rand(len(audio), generator=generator) * (most + 1)).long()
    place = torch.arange(mask.shape[1]) + dropped[:, None]
    inside = place < mask.shape[1]
    place = place.clamp(max=mask.shape[1] - 1)
    mask = mask.gather(1, place) * inside
    patches = audio.view(len(audio), -1, patch)
    patches = patches.gather(1, place[..., None].expand(-1, -1, patch)) * inside[..., None]
    decibels = _MAX_GAIN_DB * (2 * torch.rand(len(audio), 1, 1, generator=generator) - 1)
    return Batch({"audio": patches.reshape(audio.shape) * 10 ** (decibels / 20), "attention_mask": mask}, batch.targets)


def _logistic_regression(data: DataSet) -> Baseline:
    """On the mean and the standard deviation of each mel band over the sound."""
    spectrogram = LogMelSpectrogram(_LOG_MEL, PREPROCESSING.samples_per_patch)

    def features(inputs: Arrays) -> NDArray[Any]:
        heard = inputs["attention_mask"][..., None] == 1
        patches = torch.from_numpy(inputs["audio"]).reshape(*heard.shape[:2], -1)
        frames = torch.cat([spectrogram(part) for part in patches.tensor_split(32)]).numpy()
        return np.concatenate([frames.mean(1, where=heard), frames.std(1, where=heard)], axis=-1)

    return logistic_regression("logistic regression", features, data)


RECIPE = Recipe(
    name="languages",
    data="languages",
    config=PerceiverConfig(
        task="audio_classification",
        input=AudioInput(
            positions=FourierPositions(num_bands=8, max_resolution=(150,)),
            samples=PREPROCESSING.samples,
            samples_per_patch=PREPROCESSING.samples_per_patch,
            log_mel=_LOG_MEL,
        ),
        encoder=EncoderConfig(
            num_latents=32,
            d_latents=64,
            num_blocks=2,
            num_self_attends_per_block=2,
            cross_attention=AttentionConfig(num_heads=1, qk_channels=64, v_channels=64),
            self_attention=AttentionConfig(num_heads=4),
        ),
        decoder=DecoderConfig(num_queries=1, query_channels=64, cross_attention=AttentionConfig(), output_channels=5),
        dropout=0.1,
        labels=tuple(LANGUAGES.values()),
        preprocessing=PREPROCESSING,
    ),
    steps=3000,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=0.05,
    warmup_steps=100,
    baseline=_logistic_regression,
    transform=_augment,
)
