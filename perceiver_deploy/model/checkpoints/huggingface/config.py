"""Hugging Face's `config.json` and `preprocessor_config.json` as our configuration.

What their classes fix in code (positions, decoder heads) is fixed here; what they do differently from the reference
is a field of the configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from perceiver_deploy.bundle.preprocessing import (
    FlowPreprocessing,
    ImagePreprocessing,
    Preprocessing,
    TextPreprocessing,
)
from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig, Semantics
from perceiver_deploy.model.inputs.audio import AudioInput
from perceiver_deploy.model.inputs.flow import FlowInput
from perceiver_deploy.model.inputs.image import ImageInput
from perceiver_deploy.model.inputs.label import LabelInput
from perceiver_deploy.model.inputs.multimodal import MultimodalInput
from perceiver_deploy.model.inputs.text import TextInput
from perceiver_deploy.model.inputs.video import VideoInput
from perceiver_deploy.model.positions import FourierPositions, LearnedPositions

_IMAGE_SIZE = (224, 224)
_BICUBIC = 3
_IMAGE_MEAN = (0.485, 0.456, 0.406)
_IMAGE_STD = (0.229, 0.224, 0.225)
_ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh", "relu"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# Defaults of transformers' PerceiverConfig: a config.json written by transformers may leave them out.
_DEFAULTS: dict[str, Any] = {
    "num_latents": 256,
    "d_latents": 1280,
    "d_model": 768,
    "num_blocks": 1,
    "num_self_attends_per_block": 26,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 8,
    "qk_channels": None,
    "v_channels": None,
    "cross_attention_shape_for_attention": "kv",
    "self_attention_widening_factor": 1,
    "cross_attention_widening_factor": 1,
    "hidden_act": "gelu",
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "use_query_residual": True,
    "vocab_size": 262,
    "max_position_embeddings": 2048,
    "image_size": 56,
    "train_size": (368, 496),
    "num_frames": 16,
    "audio_samples_per_frame": 1920,
    "samples_per_patch": 16,
    "output_shape": (1, 16, 224, 224),
    "output_num_channels": 512,
    "_label_trainable_num_channels": 1024,
}


def convert_config(document: dict[str, Any], directory: Path) -> PerceiverConfig:
    """Our configuration of a Hugging Face `config.json` (parsed: `document`) in `directory`.

    Raises:
        CheckpointError: a class we do not know, or a value we cannot honour.
    """
    classes = document.get("architectures") or []
    architecture = classes[0] if isinstance(classes, list) and classes else None
    if not isinstance(architecture, str) or architecture not in _CONVERTERS:
        raise CheckpointError(
            f"{directory / 'config.json'} names the architecture {architecture!r}; expected one of "
            f"{', '.join(_CONVERTERS)} in 'architectures'."
        )
    values = {**_DEFAULTS, **document}
    try:
        return _CONVERTERS[architecture](values, directory)
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{directory / 'config.json'} has a value that cannot be used: {error}.") from error


def _encoder(values: dict[str, Any], input_channels: int) -> EncoderConfig:
    shape = values["cross_attention_shape_for_attention"]
    if shape not in ("q", "kv"):
        raise ValueError(f"cross_attention_shape_for_attention is {shape!r}, expected 'q' or 'kv'")
    default_qk = values["d_latents"] if shape == "q" else input_channels
    return EncoderConfig(
        num_latents=values["num_latents"],
        d_latents=values["d_latents"],
        num_blocks=values["num_blocks"],
        num_self_attends_per_block=values["num_self_attends_per_block"],
        cross_attention=AttentionConfig(
            num_heads=values["num_cross_attention_heads"],
            qk_channels=values["qk_channels"] or default_qk,
            v_channels=values["v_channels"],
            widening_factor=values["cross_attention_widening_factor"],
            use_query_residual=values["use_query_residual"],
        ),
        self_attention=AttentionConfig(
            num_heads=values["num_self_attention_heads"],
            qk_channels=values["qk_channels"],
            v_channels=values["v_channels"],
            widening_factor=values["self_attention_widening_factor"],
        ),
    )


def _config(values: dict[str, Any], **parts: Any) -> PerceiverConfig:
    if values["hidden_act"] not in _ACTIVATIONS:
        raise ValueError(f"hidden_act is {values['hidden_act']!r}, expected one of {', '.join(_ACTIVATIONS)}")
    return PerceiverConfig(
        semantics=Semantics(_ACTIVATIONS[values["hidden_act"]], fully_masked_rows="mean", masked_queries="attend"),
        dropout=values["attention_probs_dropout_prob"],
        initializer_range=values["initializer_range"],
        **parts,
    )


def _text_input(values: dict[str, Any]) -> TextInput:
    return TextInput(
        vocab_size=values["vocab_size"], max_length=values["max_position_embeddings"], channels=values["d_model"]
    )


def _masked_lm(values: dict[str, Any], directory: Path) -> PerceiverConfig:
    channels = values["d_model"]
    return _config(
        values,
        task="masked_lm",
        input=_text_input(values),
        encoder=_encoder(values, channels),
        decoder=DecoderConfig(
            num_queries=values["max_position_embeddings"],
            query_channels=channels,
            cross_attention=AttentionConfig(
                num_heads=8, qk_channels=8 * 32, v_channels=channels, use_query_residual=False
            ),
            output_channels=None,
        ),
        preprocessing=TextPreprocessing(),
    )


def _classification_decoder(values: dict[str, Any], num_labels: int) -> DecoderConfig:
    return DecoderConfig(
        num_queries=1, query_channels=values["d_latents"], cross_attention=AttentionConfig(), output_channels=num_labels
    )


def _labels(values: dict[str, Any]) -> tuple[str, ...]:
    if "id2label" not in values:  # transformers leaves out its default of two classes
        return tuple(f"LABEL_{index}" for index in range(values.get("num_labels", 2)))
    by_index = {int(index): str(label) for index, label in values["id2label"].items()}
    if sorted(by_index) != list(range(len(by_index))):
        raise ValueError(f"id2label has the indices {sorted(by_index)}, expected 0 to {len(by_index) - 1}")
    return tuple(by_index[index] for index in range(len(by_index)))


def _text_classification(values: dict[str, Any], directory: Path) -> PerceiverConfig:
    labels = _labels(values)
    return _config(
        values,
        task="text_classification",
        input=_text_input(values),
        encoder=_encoder(values, values["d_model"]),
        decoder=_classification_decoder(values, len(labels)),
        labels=labels,
        preprocessing=TextPreprocessing(),
    )


def _image_classification(values: dict[str, Any], directory: Path, image: ImageInput, channels: int) -> PerceiverConfig:
    labels = _labels(values)
    return _config(
        values,
        task="image_classification",
        input=image,
        encoder=_encoder(values, channels),
        decoder=_classification_decoder(values, len(labels)),
        labels=labels,
        preprocessing=_image_preprocessing(directory, image.image_size),
    )


def _fourier(values: dict[str, Any], directory: Path) -> PerceiverConfig:
    positions = FourierPositions(num_bands=64, max_resolution=(224, 224))
    return _image_classification(values, directory, ImageInput("pixels", positions, image_size=_IMAGE_SIZE), 3 + 258)


def _conv(values: dict[str, Any], directory: Path) -> PerceiverConfig:
    positions = FourierPositions(num_bands=64, max_resolution=(56, 56))
    image = ImageInput("conv", positions, stem_channels=64, image_size=_IMAGE_SIZE)
    return _image_classification(values, directory, image, 64 + 258)


def _learned(values: dict[str, Any], directory: Path) -> PerceiverConfig:
    size = values["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    positions = LearnedPositions(index_dims=(height, width), channels=256, projection_channels=256)
    image = ImageInput("conv1x1", positions, stem_channels=256, image_size=(height, width))
    return _image_classification(values, directory, image, 256 + 256)


def _optical_flow(values: dict[str, Any], directory: Path) -> PerceiverConfig:
    height, width = values["train_size"]
    flow = FlowInput(FourierPositions(num_bands=64, max_resolution=(height, width)), image_size=(height, width))
    channels = flow.channels + flow.positions.channels
    return _config(
        values,
        task="optical_flow",
        input=flow,
        encoder=_encoder(values, channels),
        decoder=DecoderConfig(
            num_queries=None,
            query_channels=channels,
            cross_attention=AttentionConfig(use_query_residual=False),
            output_channels=2,
        ),
        preprocessing=FlowPreprocessing.for_size((height, width)),
    )


def _multimodal(values: dict[str, Any], directory: Path) -> PerceiverConfig:
    frames, size, patch = values["num_frames"], values["image_size"], values["samples_per_patch"]
    clip = (frames, 4 * size, 4 * size)
    if tuple(values["output_shape"][1:]) != clip:
        raise ValueError(f"output_shape is {values['output_shape']}, expected the input's own: [1, {clip}]")
    samples, labels = frames * values["audio_samples_per_frame"], _labels(values)
    video = VideoInput(FourierPositions(num_bands=32, max_resolution=(frames, size, size)), patch_size=4, clip=clip)
    audio = AudioInput(FourierPositions(num_bands=192, max_resolution=(samples,)), samples, patch)
    widths = (48 + video.positions.channels, patch + audio.positions.channels, len(labels))
    queries = (video.positions.channels, audio.positions.channels, values["_label_trainable_num_channels"])
    return _config(
        values,
        task="multimodal_autoencoding",
        input=MultimodalInput(
            modalities={"audio": audio, "image": video, "label": LabelInput(len(labels))},
            min_padding=4,
            mask_probabilities={"audio": 0.0, "image": 0.0, "label": 1.0},
        ),
        encoder=_encoder(values, max(widths) + 4),
        decoder=DecoderConfig(
            num_queries=None,
            query_channels=max(queries) + 2,
            cross_attention=AttentionConfig(use_query_residual=False),
            output_channels=values["output_num_channels"],
            label_query_channels=values["_label_trainable_num_channels"],
        ),
        labels=labels,
    )


_CONVERTERS = {
    "PerceiverForMaskedLM": _masked_lm,
    "PerceiverForSequenceClassification": _text_classification,
    "PerceiverForImageClassificationFourier": _fourier,
    "PerceiverForImageClassificationLearned": _learned,
    "PerceiverForImageClassificationConvProcessing": _conv,
    "PerceiverForOpticalFlow": _optical_flow,
    "PerceiverForMultimodalAutoencoding": _multimodal,
}


def _image_preprocessing(directory: Path, image_size: tuple[int, int]) -> Preprocessing:
    """What `preprocessor_config.json` says, else what the published checkpoints use."""
    path = directory / "preprocessor_config.json"
    try:
        return _parse_preprocessing(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}, image_size)
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path} has a value that cannot be used: {error}.") from error


def _parse_preprocessing(values: dict[str, Any], image_size: tuple[int, int]) -> Preprocessing:
    factor = values.get("rescale_factor", 1 / 255)
    if not values.get("do_rescale", True) or abs(factor * 255 - 1) > 1e-6:
        raise ValueError(f"do_rescale {values.get('do_rescale')}, rescale_factor {factor}: only 1 / 255 is supported")
    if values.get("resample", _BICUBIC) != _BICUBIC:
        raise ValueError(f"resample {values['resample']}: only {_BICUBIC} (bicubic) is supported")
    normalised = values.get("do_normalize", True)
    size = _height_width(values.get("size"), image_size)
    crop = _height_width(values.get("crop_size"), (round(size[0] * 256 / 224), round(size[1] * 256 / 224)))
    return ImagePreprocessing(
        size=size if values.get("do_resize", True) else None,
        crop_fraction=size[0] / crop[0] if values.get("do_center_crop", True) else None,
        mean=values.get("image_mean", _IMAGE_MEAN) if normalised else (0, 0, 0),
        std=values.get("image_std", _IMAGE_STD) if normalised else (1, 1, 1),
    )


def _height_width(value: Any, default: tuple[int, int]) -> tuple[int, int]:
    if value is None:
        return default
    return (value, value) if isinstance(value, int) else (value["height"], value["width"])
