"""Every input that a model may take; in `config.json` its `kind` says which."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from perceiver_deploy.model.inputs.audio import AudioInput
from perceiver_deploy.model.inputs.entities import EntitiesInput
from perceiver_deploy.model.inputs.flow import FlowInput
from perceiver_deploy.model.inputs.image import ImageInput
from perceiver_deploy.model.inputs.multimodal import MultimodalInput
from perceiver_deploy.model.inputs.points import PointsInput
from perceiver_deploy.model.inputs.text import TextInput
from perceiver_deploy.model.inputs.tokens import TokensInput
from perceiver_deploy.model.inputs.video import VideoInput

Input = Annotated[
    TextInput
    | ImageInput
    | FlowInput
    | VideoInput
    | AudioInput
    | PointsInput
    | EntitiesInput
    | TokensInput
    | MultimodalInput,
    Field(discriminator="kind"),
]
