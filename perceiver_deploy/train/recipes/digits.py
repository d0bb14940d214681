"""Recipe `digits`: classify scikit-learn's 8 x 8 handwritten digits."""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch.nn import functional

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.sets.digits import PREPROCESSING
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.image import ImageInput
from perceiver_deploy.model.positions import FourierPositions
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.recipe import Baseline, Recipe

_MAX_ROTATION = math.radians(12)
_MAX_SCALE = 0.12
_MAX_SHIFT = 0.2  # in half image widths: 0.8 pixels
_BACKGROUND = -1.0


def _augment(batch: Batch, generator: torch.Generator) -> Batch:
    """Rotate, scale and shift each image a little."""
    pixels = batch.inputs["pixel_values"]
    draw = 2 * torch.rand(5, len(pixels), generator=generator) - 1
    angle, scale_x, scale_y = draw[0] * _MAX_ROTATION, 1 + draw[1] * _MAX_SCALE, 1 + draw[2] * _MAX_SCALE
    rows = torch.stack(
        [
            torch.stack([scale_x * angle.cos(), -scale_x * angle.sin(), draw[3] * _MAX_SHIFT], dim=-1),
            torch.stack([scale_y * angle.sin(), scale_y * angle.cos(), draw[4] * _MAX_SHIFT], dim=-1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(rows, list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels - _BACKGROUND, grid, align_corners=False) + _BACKGROUND
    return Batch({"pixel_values": moved}, batch.targets)


def _logistic_regression(data: DataSet) -> Baseline:
    """On the pixels, one colour of them."""
    from sklearn.linear_model import LogisticRegression

    def features(inputs: Arrays) -> NDArray[Any]:
        return inputs["pixel_values"][:, 0].reshape(len(inputs["pixel_values"]), -1)

    classifier = LogisticRegression(max_iter=1000).fit(features(data.train.inputs), data.train.targets)
    return Baseline("logistic regression", lambda inputs: {"logits": classifier.decision_function(features(inputs))})


RECIPE = Recipe(
    name="digits",
    data="digits",
    config=PerceiverConfig(
        task="image_classification",
        input=ImageInput(
            stem="pixels", positions=FourierPositions(num_bands=6, max_resolution=(8, 8)), image_size=(8, 8)
        ),
        encoder=EncoderConfig(
            num_latents=16,
            d_latents=64,
            num_blocks=2,
            num_self_attends_per_block=2,
            cross_attention=AttentionConfig(num_heads=1, qk_channels=32, v_channels=64),
            self_attention=AttentionConfig(num_heads=4),
        ),
        decoder=DecoderConfig(num_queries=1, query_channels=64, cross_attention=AttentionConfig(), output_channels=10),
        labels=tuple("0123456789"),
        preprocessing=PREPROCESSING,
    ),
    steps=4000,
    batch_size=64,
    learning_rate=3e-3,
    weight_decay=0.05,
    warmup_steps=100,
    baseline=_logistic_regression,
    transform=_augment,
)
