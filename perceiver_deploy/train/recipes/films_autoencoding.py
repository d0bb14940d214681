"""Recipe `films-autoencoding`: pictures, sound and label of short clips of a film through 64 latents and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.sets.film_sets import PART_LABELS, PICTURES_AND_SOUND, SAMPLES_PER_PATCH
from perceiver_deploy.data.sets.films import FRAMES, SIZE
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.audio import AudioInput
from perceiver_deploy.model.inputs.label import LabelInput
from perceiver_deploy.model.inputs.multimodal import MultimodalInput
from perceiver_deploy.model.inputs.video import VideoInput
from perceiver_deploy.model.positions import FourierPositions
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.recipe import Baseline, Recipe

_IMAGE_POINTS = 192
_AUDIO_WEIGHT = 2.0
_LABEL_WEIGHT = 0.2
_LEAST_ERROR = 1e-5  # 50 dB: a clip beyond it is good enough


def _mix_sound_and_draw_points(batch: Batch, generator: torch.Generator) -> Batch:
    """Mix the sound of every clip with that of another, turned round in time and sign; draw pixels to decode."""
    image, audio = batch.inputs["image"], batch.inputs["audio"]
    count = len(audio)
    other = audio[torch.randperm(count, generator=generator)]
    shift = int(torch.randint(audio.shape[1], (), generator=generator))
    own, others = 1.5 * torch.randn(2, count, 1, 1, generator=generator)
    plain = torch.rand(count, 1, 1, generator=generator) < 0.25
    mixed = torch.where(plain, audio, (own * audio + others * other.roll(shift, 1)).clamp(-1, 1))
    if torch.rand((), generator=generator) < 0.5:
        mixed = mixed.flip(1)
    mirrored = torch.rand(count, 1, 1, 1, 1, generator=generator) < 0.5
    image = torch.where(mirrored, image.flip(-1), image)
    points = torch.randperm(FRAMES * SIZE * SIZE, generator=generator)[:_IMAGE_POINTS]
    return Batch({**batch.inputs, "image": image, "audio": mixed, "image_points": points}, batch.targets)


def _loss(outputs: dict[str, Tensor], batch: Batch) -> Tensor:
    """The mean logarithm of each clip's squared error, which is what PSNR is, for picture and sound; and the label."""
    image, audio = batch.inputs["image"], batch.inputs["audio"]
    pixels = image.movedim(2, -1).flatten(1, 3)[:, batch.inputs["image_points"]]
    image_error = (outputs["image_reconstruction"] - pixels).square().mean(dim=(1, 2))
    audio_error = (outputs["audio_reconstruction"] - audio[..., 0]).square().mean(dim=1)
    label = functional.cross_entropy(outputs["label_logits"], batch.targets)
    return (
        torch.log1p(image_error / _LEAST_ERROR).mean()
        + _AUDIO_WEIGHT * torch.log1p(audio_error / _LEAST_ERROR).mean()
        + _LABEL_WEIGHT * label
    )


def _mean_clip(data: DataSet) -> Baseline:
    """The mean of the training clips, point by point, and the commonest label."""
    image, audio = (data.train.inputs[name].mean(axis=0) for name in ("image", "audio"))
    pixels = np.moveaxis(image, 1, -1).reshape(-1, 3)
    shares = np.bincount(data.train.targets, minlength=len(PART_LABELS)) / len(data.train)

    def run(inputs: Arrays) -> Arrays:
        count = len(inputs["image"])
        outputs = {
            "image_reconstruction": pixels[inputs["image_points"]],
            "audio_reconstruction": audio.reshape(-1, SAMPLES_PER_PATCH)[inputs["audio_points"]].ravel(),
            "label_logits": shares,
        }
        return {name: np.broadcast_to(output, (count, *output.shape)) for name, output in outputs.items()}

    return Baseline("mean of the training clips", run)


_VIDEO = VideoInput(FourierPositions(8, (4, 32, 32)), patch_size=4, clip=(FRAMES, SIZE, SIZE))
_AUDIO = AudioInput(
    FourierPositions(16, (64,)), samples=PICTURES_AND_SOUND.samples, samples_per_patch=SAMPLES_PER_PATCH
)
RECIPE = Recipe(
    name="films-autoencoding",
    data="films-autoencoding",
    config=PerceiverConfig(
        task="multimodal_autoencoding",
        input=MultimodalInput(
            {"image": _VIDEO, "audio": _AUDIO, "label": LabelInput(len(PART_LABELS))},
            min_padding=4,
            mask_probabilities={"label": 1.0},
        ),
        encoder=EncoderConfig(
            num_latents=64,
            d_latents=96,
            num_blocks=1,
            num_self_attends_per_block=3,
            cross_attention=AttentionConfig(num_heads=1, qk_channels=64, v_channels=96),
            self_attention=AttentionConfig(num_heads=4),
        ),
        decoder=DecoderConfig(
            num_queries=None,
            query_channels=64,
            cross_attention=AttentionConfig(num_heads=4, qk_channels=64, v_channels=96, widening_factor=2),
            output_channels=64,
            label_query_channels=32,
        ),
        labels=PART_LABELS,
        preprocessing=PICTURES_AND_SOUND,
    ),
    steps=3000,
    batch_size=16,
    learning_rate=2e-3,
    weight_decay=0.01,
    warmup_steps=200,
    baseline=_mean_clip,
    loss=_loss,
    transform=_mix_sound_and_draw_points,
)
