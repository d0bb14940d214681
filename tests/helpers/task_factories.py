"""Small models of the tasks beyond text and images, of Perceiver and of Perceiver IO."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
from _pytest.mark.structures import ParameterSet

from perceiver_deploy.model.config import (
    AttentionConfig,
    DecoderConfig,
    EncoderConfig,
    MeanDecoderConfig,
    PerceiverConfig,
)
from perceiver_deploy.model.inputs.audio import AudioInput
from perceiver_deploy.model.inputs.entities import EntitiesInput
from perceiver_deploy.model.inputs.flow import FlowInput
from perceiver_deploy.model.inputs.label import LabelInput
from perceiver_deploy.model.inputs.log_mel import LogMel
from perceiver_deploy.model.inputs.multimodal import MultimodalInput
from perceiver_deploy.model.inputs.points import PointsInput
from perceiver_deploy.model.inputs.text import TextInput
from perceiver_deploy.model.inputs.tokens import TokensInput
from perceiver_deploy.model.inputs.video import VideoInput
from perceiver_deploy.model.positions import FourierPositions
from perceiver_deploy.model.tasks.catalogue import PerceiverModel
from tests.helpers.factories import KINDS, perturbed_model, small_model

CLASSES = 5
_VIDEO = VideoInput(FourierPositions(3, (4, 4, 4)), patch_size=2, clip=(4, 8, 12))
_LOG_MEL = LogMel(sample_rate=100, num_mels=6, window=18)
_AUDIO = AudioInput(FourierPositions(5, (64,)), samples=64, samples_per_patch=4)
_IO = EncoderConfig(8, 32, 2, 2, AttentionConfig(1), AttentionConfig(4))
_PERCEIVER = EncoderConfig(8, 32, 4, 1, AttentionConfig(1), AttentionConfig(4), num_cross_attentions=3)
_CLASSIFY = DecoderConfig(1, 32, AttentionConfig(1), CLASSES)
_NO_RESIDUAL = AttentionConfig(1, use_query_residual=False)

TASK_CONFIGS = {
    "optical_flow": PerceiverConfig(
        "optical_flow",
        FlowInput(FourierPositions(4, (12, 16)), channels=8, image_size=(12, 16)),
        _IO,
        DecoderConfig(None, 8 + 18, _NO_RESIDUAL, 2),
    ),
    "multimodal_autoencoding": PerceiverConfig(
        "multimodal_autoencoding",
        MultimodalInput(
            {"image": _VIDEO, "audio": _AUDIO, "label": LabelInput(7)}, 4, {"image": 0.0, "audio": 0.0, "label": 1.0}
        ),
        _IO,
        DecoderConfig(None, 40, _NO_RESIDUAL, 16, label_query_channels=20),
    ),
    "audio_classification": PerceiverConfig("audio_classification", _AUDIO, _IO, _CLASSIFY),
    "audio_classification, log-mel": PerceiverConfig(
        "audio_classification", dataclasses.replace(_AUDIO, log_mel=_LOG_MEL), _IO, _CLASSIFY
    ),
    "video_classification": PerceiverConfig(
        "video_classification", _VIDEO, _PERCEIVER, MeanDecoderConfig(CLASSES, norm=True)
    ),
    "audiovisual_classification": PerceiverConfig(
        "audiovisual_classification", MultimodalInput({"image": _VIDEO, "audio": _AUDIO}), _IO, _CLASSIFY
    ),
    "point_cloud_classification": PerceiverConfig(
        "point_cloud_classification",
        PointsInput(FourierPositions(4, (20, 20, 20)), points=32),
        _PERCEIVER,
        MeanDecoderConfig(CLASSES),
    ),
    "entities": PerceiverConfig(
        "entities", EntitiesInput(6, 12, 16, max_entities=24), _IO, DecoderConfig(1, 12, AttentionConfig(1), CLASSES)
    ),
    "tokens": PerceiverConfig(
        "tokens", TokensInput(6, tokens=16, queries=12), _IO, DecoderConfig(None, 12, _NO_RESIDUAL, CLASSES)
    ),
    "multitask_text": PerceiverConfig(
        "multitask_text", TextInput(262, 40, 24), _IO, DecoderConfig(3, 24, AttentionConfig(1), CLASSES)
    ),
}

MODELS = (*KINDS, *TASK_CONFIGS)
"""Names of all small models: one or more of every task."""

LIKE_OTHERS = ("audio_classification", "audiovisual_classification", "video_classification")
"""Made of what `audio_classification, log-mel`, `multimodal_autoencoding` and `point_cloud_classification` have too."""


def mostly_quick(names: Iterable[str]) -> list[ParameterSet]:
    """Names of small models as parameters, those of `LIKE_OTHERS` for `make test-slow`."""
    return [pytest.param(name, marks=pytest.mark.slow if name in LIKE_OTHERS else ()) for name in names]


def named_model(name: str) -> PerceiverModel:
    """The small model of that name, see `MODELS`."""
    return perturbed_model(TASK_CONFIGS[name]) if name in TASK_CONFIGS else small_model(name)
