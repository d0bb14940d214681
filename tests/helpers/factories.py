"""Small models of the five kinds, with weights that make their outputs depend on every parameter and input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from perceiver_deploy.bundle.preprocessing import ImagePreprocessing, TextPreprocessing
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig, Semantics
from perceiver_deploy.model.inputs.image import ImageInput
from perceiver_deploy.model.inputs.text import TextInput
from perceiver_deploy.model.positions import FourierPositions, LearnedPositions
from perceiver_deploy.model.tasks.catalogue import PerceiverModel, build_model

IMAGE_KINDS = ("fourier", "conv", "learned")
TEXT_KINDS = ("masked_lm", "text_classification")
KINDS = IMAGE_KINDS + TEXT_KINDS
VOCABULARY, MAX_LENGTH, TEXT_CHANNELS, CLASSES = 262, 32, 24, 5

_IMAGE_INPUTS = {
    "fourier": ImageInput("pixels", FourierPositions(num_bands=4, max_resolution=(16, 16)), image_size=(10, 12)),
    "conv": ImageInput(
        "conv", FourierPositions(num_bands=4, max_resolution=(8, 8)), stem_channels=6, image_size=(16, 20)
    ),
    "learned": ImageInput(
        "conv1x1",
        LearnedPositions(index_dims=(8, 9), channels=6, projection_channels=5),
        stem_channels=6,
        image_size=(8, 9),
    ),
}
_PIXELS = ImagePreprocessing(size=None, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def small_config(kind: str, **changes: Any) -> PerceiverConfig:
    """8 latents of 32 channels, one layer in 2 blocks that share it; `changes` replace fields of `PerceiverConfig`."""
    encoder = EncoderConfig(
        num_latents=8,
        d_latents=32,
        num_blocks=2,
        num_self_attends_per_block=1,
        cross_attention=AttentionConfig(num_heads=2, qk_channels=16, v_channels=32),
        self_attention=AttentionConfig(num_heads=4),
    )
    classifier = DecoderConfig(
        num_queries=1, query_channels=32, cross_attention=AttentionConfig(), output_channels=CLASSES
    )
    if kind in IMAGE_KINDS:
        config = PerceiverConfig(
            "image_classification",
            _IMAGE_INPUTS[kind],
            encoder,
            classifier,
            labels=tuple("abcde"),
            preprocessing=_PIXELS,
        )
    elif kind == "text_classification":
        config = PerceiverConfig(
            kind,
            TextInput(VOCABULARY, MAX_LENGTH, TEXT_CHANNELS),
            encoder,
            classifier,
            semantics=Semantics("gelu", fully_masked_rows="mean"),
            preprocessing=TextPreprocessing(),
        )
    else:
        decoder = DecoderConfig(
            num_queries=MAX_LENGTH,
            query_channels=TEXT_CHANNELS,
            cross_attention=AttentionConfig(
                num_heads=2, qk_channels=16, v_channels=TEXT_CHANNELS, use_query_residual=False
            ),
            output_channels=None,
        )
        text = TextInput(VOCABULARY, MAX_LENGTH, TEXT_CHANNELS)
        config = PerceiverConfig("masked_lm", text, encoder, decoder, preprocessing=TextPreprocessing())
    return dataclasses.replace(config, **changes)


def with_encoder(config: PerceiverConfig, **changes: Any) -> PerceiverConfig:
    """The configuration with some fields of its encoder replaced."""
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, **changes))


def perturb(model: nn.Module, seed: int = 0) -> None:
    """Add noise to every parameter and to the batch norm's statistics.

    Fresh models have zero biases, unit norms and latents near zero: a bias that is lost, or a mask that is ignored,
    would not show in their outputs.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)


def small_model(kind: str, seed: int = 0, **changes: Any) -> PerceiverModel:
    """A perturbed model of `small_config`, in eval mode."""
    return perturbed_model(small_config(kind, **changes), seed)


def perturbed_model(config: PerceiverConfig, seed: int = 0) -> PerceiverModel:
    """A perturbed model of a configuration, in eval mode."""
    torch.manual_seed(seed)
    model = build_model(config)
    perturb(model, seed)
    return model.eval()


def text_inputs(batch: int, length: int, seed: int = 0, *, fully_masked_row: bool = False) -> dict[str, np.ndarray]:
    """Random ids; the last row masked from its middle on, and the first one wholly if asked for."""
    rng = np.random.default_rng(seed)
    mask = np.ones((batch, length), np.int64)
    mask[-1, (length + 1) // 2 :] = 0
    if fully_masked_row:
        mask[0] = 0
    return {"input_ids": rng.integers(0, VOCABULARY, (batch, length)), "attention_mask": mask}


def image_inputs(batch: int, height: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Normal pixels."""
    pixels = np.random.default_rng(seed).standard_normal((batch, 3, height, width))
    return {"pixel_values": pixels.astype(np.float32)}


def some_inputs(kind: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Three samples, of several tokens each."""
    if kind in TEXT_KINDS:
        return text_inputs(3, 11, seed)
    return image_inputs(3, 15, 13, seed) if kind == "conv" else image_inputs(3, 7, 6, seed)


def tensors(inputs: dict[str, np.ndarray], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """The inputs as tensors, the floating ones in `dtype`."""
    as_tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in as_tensors.items()}


def relative_l2(result: Any, reference: Any) -> float:
    """Norm of the difference over the norm of the reference, in float64."""
    result, reference = np.asarray(result, np.float64), np.asarray(reference, np.float64)
    assert result.shape == reference.shape
    return float(np.linalg.norm(result - reference) / np.linalg.norm(reference))


def directory_content(root: Path) -> dict[str, bytes]:
    """Bytes of every file below a directory by relative path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def manifest_document(**changes: Any) -> dict[str, Any]:
    """A valid `bundle.json`, parsed, of one variant in `onnx/fp32.onnx`; `changes` replace its entries."""
    document = {
        "schema_version": 1,
        "task": "masked_lm",
        "axes": {"batch": {"opt": 1}, "length": {"opt": 8, "max": 16}},
        "stages": {
            "full": {
                "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "length"]}],
                "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", "length", 262]}],
            }
        },
        "variants": {"fp32": {"precision": "fp32", "for": ["onnxruntime"], "files": {"full": "onnx/fp32.onnx"}}},
        "files": {"onnx/fp32.onnx": {"sha256": "0" * 64, "bytes": 1}},
    }
    return {**document, **changes}
