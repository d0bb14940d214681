"""The raw form of a model."""

from __future__ import annotations

from perceiver_deploy.bundle.preprocessing import (
    AudioPreprocessing,
    FlowPreprocessing,
    ImagePreprocessing,
    TextPreprocessing,
    VideoPreprocessing,
)
from perceiver_deploy.errors import UsageError
from perceiver_deploy.model.raw.flow import RawFlowModel
from perceiver_deploy.model.raw.images import RawImageModel
from perceiver_deploy.model.raw.sound import RawAudioModel
from perceiver_deploy.model.raw.text import RawTextModel
from perceiver_deploy.model.raw.video import RawVideoModel
from perceiver_deploy.model.raw.wrapping import RawModel
from perceiver_deploy.model.tasks.catalogue import PerceiverModel

_RAW_ALREADY = ("point_cloud_classification", "entities", "tokens")


def raw_model(model: PerceiverModel) -> RawModel:
    """A model that takes raw data as the checkpoint's preprocessing states, around `model`, whose weights it shares.

    Raises:
        UsageError: the task or the preprocessing has no raw form.
    """
    task, preprocessing = model.config.task, model.config.preprocessing
    if task in _RAW_ALREADY:
        names = ", ".join(spec.name for spec in model.signature.stage.inputs)
        raise UsageError(
            f"Task {task!r} has no raw inputs: its arrays ({names}) come of no file format's bytes and are fed as they "
            "are. Export it without --raw-inputs."
        )
    if isinstance(preprocessing, ImagePreprocessing):
        _check_image(model, preprocessing)
        return RawImageModel(model, preprocessing)
    if isinstance(preprocessing, TextPreprocessing):
        return RawTextModel(model, preprocessing)
    if isinstance(preprocessing, AudioPreprocessing):
        return RawAudioModel(model, preprocessing)
    if isinstance(preprocessing, FlowPreprocessing):
        return RawFlowModel(model, preprocessing)
    if isinstance(preprocessing, VideoPreprocessing):
        return RawVideoModel(model, preprocessing)
    raise UsageError(
        f"The checkpoint (task {task!r}) states no preprocessing, so what is done to raw data is not known. Export it "
        "without --raw-inputs, or state `preprocessing` in its config.json."
    )


def _check_image(model: PerceiverModel, preprocessing: ImagePreprocessing) -> None:
    colours = model.signature.stage.inputs[0].shape[1]
    if colours != 3:
        raise UsageError(
            f"The model takes pictures of {colours} channel(s); image_uint8 has 3, red, green and blue. Export it "
            "without --raw-inputs."
        )
    if preprocessing.size is None and preprocessing.crop_fraction is not None:
        raise UsageError(
            f"The preprocessing crops to {preprocessing.crop_fraction} of the short side and resizes to no size, which "
            "has no raw form. State `size` in config.json, or export without --raw-inputs."
        )
