"""Every model, and the one of a configuration."""

from __future__ import annotations

from perceiver_deploy.bundle.manifest import Task
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.tasks.audio import AudioClassifier
from perceiver_deploy.model.tasks.entities import EntitiesModel
from perceiver_deploy.model.tasks.flow import OpticalFlowModel
from perceiver_deploy.model.tasks.image import ImageClassifier
from perceiver_deploy.model.tasks.multimodal import AudiovisualClassifier, MultimodalAutoencoder
from perceiver_deploy.model.tasks.points import PointCloudClassifier
from perceiver_deploy.model.tasks.text import MaskedLanguageModel, MultitaskTextModel, TextClassifier
from perceiver_deploy.model.tasks.tokens import TokensModel
from perceiver_deploy.model.tasks.video import VideoClassifier

PerceiverModel = (
    MaskedLanguageModel
    | TextClassifier
    | MultitaskTextModel
    | ImageClassifier
    | OpticalFlowModel
    | MultimodalAutoencoder
    | AudioClassifier
    | VideoClassifier
    | AudiovisualClassifier
    | PointCloudClassifier
    | EntitiesModel
    | TokensModel
)
_MODELS: dict[Task, type[PerceiverModel]] = {
    "masked_lm": MaskedLanguageModel,
    "text_classification": TextClassifier,
    "multitask_text": MultitaskTextModel,
    "image_classification": ImageClassifier,
    "optical_flow": OpticalFlowModel,
    "multimodal_autoencoding": MultimodalAutoencoder,
    "audio_classification": AudioClassifier,
    "video_classification": VideoClassifier,
    "audiovisual_classification": AudiovisualClassifier,
    "point_cloud_classification": PointCloudClassifier,
    "entities": EntitiesModel,
    "tokens": TokensModel,
}


def build_model(config: PerceiverConfig) -> PerceiverModel:
    """A freshly initialised model of the configuration's task.

    Raises:
        ValueError: values of the configuration that do not fit together.
    """
    return _MODELS[config.task](config)
