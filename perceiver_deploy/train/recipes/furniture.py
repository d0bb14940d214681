"""Recipe `furniture`: classify furniture by points of its surface."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.sets.furniture import LABELS, PREPROCESSING
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.points import PointsInput
from perceiver_deploy.model.positions import FourierPositions
from perceiver_deploy.train.baselines.linear import logistic_regression
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.recipe import Baseline, Recipe

_DRAWN_POINTS = 256
_MIN_PRESENT = 0.5
_MAX_STRETCH = math.log(1.3)
_JITTER = 0.01
_BINS = 32


def _augment(batch: Batch, generator: torch.Generator) -> Batch:
    """Draw points; turn about the vertical axis, mirror and stretch the clouds; move points; mask some of them."""
    points = batch.inputs["points"]
    clouds = len(points)
    points = points[:, torch.randperm(points.shape[1], generator=generator)[:_DRAWN_POINTS]]
    turn, mirror, present = torch.rand(3, clouds, generator=generator)
    sin, cos = (2 * math.pi * turn).sin(), (2 * math.pi * turn).cos()
    zero, one = torch.zeros(clouds), torch.ones(clouds)
    side = 1 - 2 * mirror.round()
    rows = [torch.stack(row, -1) for row in ([cos * side, zero, -sin], [zero, one, zero], [sin * side, zero, cos])]
    stretch = (_MAX_STRETCH * (2 * torch.rand(clouds, 1, 3, generator=generator) - 1)).exp()
    points = (points * stretch) @ torch.stack(rows, 1).mT
    points = points + _JITTER * torch.randn(points.shape, generator=generator)
    points = points - points.mean(1, keepdim=True)
    points = points / points.norm(dim=-1).amax(1)[:, None, None]
    limit = (_MIN_PRESENT + (1 - _MIN_PRESENT) * present) * _DRAWN_POINTS
    mask = torch.arange(_DRAWN_POINTS) < limit[:, None]
    return Batch({"points": points, "attention_mask": mask.long()}, batch.targets)


def _logistic_regression(data: DataSet) -> Baseline:
    """On the extent along each axis and on shape distributions: distances of random pairs of points (Osada, 2002)."""

    def features(inputs: Arrays) -> NDArray[Any]:
        points = inputs["points"]
        half = points.shape[1] // 2
        distances = np.linalg.norm(np.subtract(points[:, :half], points[:, half : 2 * half]), axis=-1)
        extents = [np.ptp(points[..., 1], axis=1), *_horizontal_extents(points)]
        shares = [np.histogram(row, _BINS, (0, 2))[0] / half for row in distances]
        heights = [np.histogram(row, _BINS, (-1, 1))[0] / len(row) for row in points[..., 1]]
        return np.column_stack([*extents, np.array(shares), np.array(heights)])

    return logistic_regression("logistic regression on extents and shape distributions", features, data, strength=0.1)


def _horizontal_extents(points: NDArray[Any]) -> NDArray[Any]:
    """Standard deviations [2, clouds] along the two horizontal main axes, whatever way a model faces."""
    flat = points[..., [0, 2]]
    covariance = np.einsum("cpi,cpj->cij", flat, flat) / flat.shape[1]
    return np.sqrt(np.linalg.eigvalsh(covariance).clip(min=0)).T


RECIPE = Recipe(
    name="furniture",
    data="furniture",
    config=PerceiverConfig(
        task="point_cloud_classification",
        input=PointsInput(FourierPositions(num_bands=8, max_resolution=(16, 16, 16)), points=PREPROCESSING.points),
        encoder=EncoderConfig(
            num_latents=32,
            d_latents=96,
            num_blocks=2,
            num_self_attends_per_block=2,
            cross_attention=AttentionConfig(num_heads=1, qk_channels=48, v_channels=96),
            self_attention=AttentionConfig(num_heads=4),
            num_cross_attentions=2,
        ),
        decoder=DecoderConfig(
            num_queries=1, query_channels=96, cross_attention=AttentionConfig(), output_channels=len(LABELS)
        ),
        labels=LABELS,
        preprocessing=PREPROCESSING,
        dropout=0.1,
    ),
    steps=1000,
    batch_size=32,
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup_steps=100,
    baseline=_logistic_regression,
    transform=_augment,
    ema_decay=0.99,
)
