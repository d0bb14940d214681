"""A start for text models: sinusoidal positions, and attention that looks at neighbouring bytes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from perceiver_deploy.data.split import Split
from perceiver_deploy.model.inputs.text import TextInputAdapter
from perceiver_deploy.model.perceiver import AttentionLayer
from perceiver_deploy.model.tasks.catalogue import PerceiverModel
from perceiver_deploy.model.tasks.text import MaskedLanguageModel

_POSITION_SCALE = 0.15  # beside token embeddings of initializer_range 0.1
_LATENT_SCALE = 2.0
_SHARPNESS = 2.0
_DAMPING = 0.5


@torch.no_grad()
def attend_locally(model: PerceiverModel, data: Split) -> None:
    """Set positions and latents to sinusoids of their place, and let each head look a fixed step beside it.

    The same goes for a language model's queries, which have a place too. From random positions a small model learns
    only letter frequencies in its first thousands of steps. Query and key weights start as random features that agree
    for equal positions ("Mimetic initialization of self-attention layers", Trockman and Kolter 2023, arXiv
    2305.09828); a rotation of each sinusoid's sine and cosine moves a head's focus. `data` is not needed.
    """
    assert isinstance(model.input_adapter, TextInputAdapter)
    table, latents = model.input_adapter.position_embeddings.weight, model.encoder.latents
    length, channels = table.shape
    spacing = length / len(latents)
    frequencies = math.pi * length ** -(torch.arange(channels // 2) / (channels // 2 - 1))
    positions = _sinusoids(torch.arange(length), frequencies)
    table.copy_(_POSITION_SCALE * positions)
    centres = (torch.arange(len(latents)) + 0.5) * spacing - 0.5
    latents[:, :channels] = _LATENT_SCALE * _sinusoids(centres, frequencies)
    _focus(model.encoder.cross_attention, frequencies, step=1)
    for layer in model.encoder.self_attends:
        assert isinstance(layer, AttentionLayer)
        _focus(layer, frequencies, step=spacing)
        _damp(layer)
    _damp(model.encoder.cross_attention)
    if isinstance(model, MaskedLanguageModel) and model.decoder.queries is not None:
        model.decoder.queries.copy_(_POSITION_SCALE * positions)
        _focus(model.decoder.cross_attention, frequencies, step=spacing)


def _sinusoids(places: Tensor, frequencies: Tensor) -> Tensor:
    """[places, 2 * frequencies]: sines, then cosines."""
    angles = places[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _focus(layer: AttentionLayer, frequencies: Tensor, step: float) -> None:
    """Let head h look `(h - heads // 2) * step` places ahead of the query's."""
    channels = 2 * len(frequencies)
    queries = layer.query.weight.chunk(layer.num_heads)
    keys = layer.key.weight.chunk(layer.num_heads)
    for head, (query, key) in enumerate(zip(queries, keys, strict=True)):
        angles = (head - layer.num_heads // 2) * step * frequencies
        sine, cosine = torch.diag(angles.sin()), torch.diag(angles.cos())
        rotation = torch.cat([torch.cat([cosine, sine], dim=1), torch.cat([-sine, cosine], dim=1)])
        features = torch.randn(len(key), channels) * _SHARPNESS / math.sqrt(channels)
        key[:, :channels] = features
        query[:, :channels] = features @ rotation


def _damp(layer: AttentionLayer) -> None:
    """Keep the places readable in the residual stream."""
    layer.output.weight.mul_(_DAMPING)
    if layer.mlp is not None:
        projection = layer.mlp[-1]
        assert isinstance(projection, nn.Linear)
        projection.weight.mul_(_DAMPING)
