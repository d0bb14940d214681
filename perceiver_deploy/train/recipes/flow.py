"""Recipe `flow`: optical flow of crops of photographs, warped anew at every step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.media.flow import extract_patches
from perceiver_deploy.data.sets.flow_photos import PREPROCESSING, SIZE, TRAIN_PHOTOS, draw_pairs, read_photos
from perceiver_deploy.data.split import Split
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.flow import FlowInput
from perceiver_deploy.model.positions import FourierPositions
from perceiver_deploy.model.tasks.catalogue import PerceiverModel
from perceiver_deploy.model.tasks.flow import OpticalFlowModel
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.recipe import Baseline, Recipe

_INPUT = FlowInput(FourierPositions(num_bands=4, max_resolution=SIZE), channels=32, image_size=SIZE)
_TOKEN_CHANNELS = _INPUT.channels + _INPUT.positions.channels
_D_LATENTS = 96
_WHITENING_FLOOR = 0.02  # of standard deviations: what is weaker is mostly rounding to 8 bits
_LOSS_FLOOR = 1e-2  # pixels: keeps the gradient of a distance finite at 0


def _draw(batch: Batch, generator: torch.Generator) -> Batch:
    """As many new pairs as the batch has, in place of its own: photographs give them without end."""
    seed = int(torch.randint(2**62, (), generator=generator))
    frames, flow = draw_pairs(read_photos(TRAIN_PHOTOS), len(batch.targets), np.random.default_rng(seed))
    return Batch({"patches": torch.from_numpy(extract_patches(frames))}, torch.from_numpy(flow))


def _whiten(model: PerceiverModel, data: Split) -> None:
    """Make the projection of a pixel's patches their strongest principal components, each of about unit variance.

    Patches are nearly all brightness; what moves is in differences a hundred times weaker, which training from a
    random projection did not find in the time of a recipe. As the first layer of CIFAR-10 speed runs
    (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498).
    """
    assert isinstance(model, OpticalFlowModel)
    projection = model.input_adapter.projection
    pixels = np.moveaxis(data.inputs["patches"], (1, 2), (3, 4)).reshape(-1, projection.in_features)
    patches = pixels.astype(np.float64)
    mean = patches.mean(0)
    variances, components = np.linalg.eigh(np.cov(patches, rowvar=False))
    strongest = np.argsort(-variances)[: projection.out_features]
    weight = (components[:, strongest] / (np.sqrt(variances[strongest]) + _WHITENING_FLOOR)).T
    with torch.no_grad():
        projection.weight.copy_(torch.from_numpy(weight))
        projection.bias.copy_(torch.from_numpy(-weight @ mean))


def _loss(outputs: dict[str, Tensor], batch: Batch) -> Tensor:
    """Mean end-point error in pixels."""
    difference = outputs["flow"] * PREPROCESSING.output_scale - batch.targets
    return (difference.square().sum(-1) + _LOSS_FLOOR**2).sqrt().mean()


def _zero_flow(data: DataSet) -> Baseline:
    """Nothing moves."""

    def run(inputs: Arrays) -> Arrays:
        batch, _, _, height, width = inputs["patches"].shape
        return {"flow": np.zeros((batch, height, width, 2), np.float32)}

    return Baseline("zero flow", run)


RECIPE = Recipe(
    name="flow",
    data="flow",
    config=PerceiverConfig(
        task="optical_flow",
        input=_INPUT,
        encoder=EncoderConfig(
            num_latents=32,
            d_latents=_D_LATENTS,
            num_blocks=1,
            num_self_attends_per_block=4,
            cross_attention=AttentionConfig(num_heads=1),
            self_attention=AttentionConfig(num_heads=4),
        ),
        decoder=DecoderConfig(
            num_queries=None,
            query_channels=_TOKEN_CHANNELS,
            cross_attention=AttentionConfig(qk_channels=_D_LATENTS, v_channels=_D_LATENTS),
            output_channels=2,
        ),
        preprocessing=PREPROCESSING,
    ),
    steps=2400,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=0.02,
    warmup_steps=100,
    baseline=_zero_flow,
    loss=_loss,
    transform=_draw,
    initialize=_whiten,
)
