"""Video, sound and label side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from perceiver_deploy.model.inputs.audio import AudioInput, AudioInputAdapter
from perceiver_deploy.model.inputs.label import LabelInput, LabelInputAdapter
from perceiver_deploy.model.inputs.video import VideoInput, VideoInputAdapter


@dataclass(frozen=True)
class MultimodalInput:
    """Modalities side by side: tokens of each padded with a trainable vector to the widest plus `min_padding`.

    While training, a token is replaced by a trainable one with its modality's probability in `mask_probabilities`. In
    eval nothing is random: a modality that was always masked stays so, the others are never masked.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    modalities: dict[str, Annotated[VideoInput | AudioInput | LabelInput, Field(discriminator="kind")]]
    min_padding: int = 2
    mask_probabilities: dict[str, float] = field(default_factory=dict)
    kind: Literal["multimodal"] = "multimodal"


def _build_adapter(
    config: VideoInput | AudioInput | LabelInput,
) -> VideoInputAdapter | AudioInputAdapter | LabelInputAdapter:
    if isinstance(config, VideoInput):
        return VideoInputAdapter(config)
    return AudioInputAdapter(config) if isinstance(config, AudioInput) else LabelInputAdapter(config)


class MultimodalInputAdapter(nn.Module):
    """Modalities by name to tokens [batch, tokens of all, channels], in the order of their sorted names."""

    def __init__(self, config: MultimodalInput, initializer_range: float) -> None:
        super().__init__()
        self.mask_probabilities = config.mask_probabilities
        adapters = {name: _build_adapter(config.modalities[name]) for name in sorted(config.modalities)}
        widths = {name: adapter.channels for name, adapter in adapters.items()}
        self.modalities = nn.ModuleDict(adapters)
        self.channels = max(widths.values()) + config.min_padding
        self.padding = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(1, self.channels - width)) for name, width in widths.items()}
        )
        self.mask = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(1, self.channels)) for name in config.mask_probabilities}
        )
        for parameter in [*self.padding.values(), *self.mask.values()]:
            nn.init.trunc_normal_(parameter, std=initializer_range)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Adapt each modality, pad it to the common width, mask it where it is to be, and put all in a row."""
        tokens = [self._pad_and_mask(name, adapter(inputs[name])) for name, adapter in self.modalities.items()]
        return torch.cat(tokens, dim=1)

    def _pad_and_mask(self, name: str, tokens: Tensor) -> Tensor:
        batch, count, _ = tokens.shape
        tokens = torch.cat([tokens, self.padding[name].expand(batch, count, -1)], dim=-1)
        probability = self.mask_probabilities.get(name, 0.0)
        if self.training and 0 < probability < 1:
            masked = torch.rand(batch, count, 1, device=tokens.device) < probability
            return torch.where(masked, self.mask[name], tokens)
        return self.mask[name].expand(batch, count, -1) if probability == 1 else tokens
