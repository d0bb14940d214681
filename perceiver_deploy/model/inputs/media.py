"""Input adapters of moving pictures and sound: patches with Fourier positions, alone or side by side."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perceiver_deploy.model.inputs.config import AudioInput, FlowInput, LabelInput, MultimodalInput, VideoInput
from perceiver_deploy.model.inputs.log_mel import LogMelSpectrogram
from perceiver_deploy.model.positions import FourierEncoding

FLOW_PATCH_CHANNELS = 27


class FlowInputAdapter(nn.Module):
    """Patches [batch, 2, 27, height, width] to one token a pixel [batch, height * width, channels]."""

    def __init__(self, config: FlowInput) -> None:
        super().__init__()
        self.projection = nn.Linear(2 * FLOW_PATCH_CHANNELS, config.channels)
        self.positions = FourierEncoding(config.positions)
        self.channels = config.channels + self.positions.channels

    def forward(self, patches: Tensor, points: Tensor | None = None) -> Tensor:
        """Both frames' patches of a pixel, projected, and its position; of the `points` [tokens] where they are given.

        Points are flat indices into [height, width].
        """
        height, width = patches.shape[3:]
        if points is None:
            features = self.projection(patches.permute(0, 3, 4, 1, 2).flatten(3)).flatten(1, 2)
        else:
            features = self.projection(patches.flatten(3).index_select(3, points).permute(0, 3, 1, 2).flatten(2))
        return self.positions.beside(features, (height, width), points)


class VideoInputAdapter(nn.Module):
    """Frames [batch, frames, 3, height, width] to one token a patch [batch, tokens, channels]."""

    def __init__(self, config: VideoInput) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.positions = FourierEncoding(config.positions)
        self.channels = 3 * config.patch_size**2 + self.positions.channels

    def forward(self, image: Tensor) -> Tensor:
        """Channel order of a patch: rows, columns, RGB."""
        size = self.patch_size
        batch, frames, colours, height, width = image.shape
        patches = image.reshape(batch, frames, colours, height // size, size, width // size, size)
        patches = patches.permute(0, 1, 3, 5, 4, 6, 2).flatten(4).flatten(1, 3)
        return self.positions.beside(patches, (frames, height // size, width // size))


class AudioInputAdapter(nn.Module):
    """Samples [batch, samples, 1] to one token a patch [batch, samples / samples_per_patch, channels]."""

    def __init__(self, config: AudioInput) -> None:
        super().__init__()
        self.samples_per_patch = config.samples_per_patch
        self.log_mel = None if config.log_mel is None else LogMelSpectrogram(config.log_mel, config.samples_per_patch)
        self.positions = FourierEncoding(config.positions)
        features = config.samples_per_patch if config.log_mel is None else config.log_mel.num_mels
        self.channels = features + self.positions.channels

    def forward(self, audio: Tensor, mask: Tensor | None = None) -> Tensor:
        """The samples of a patch, or its spectrum, and its position.

        A spectrum sees samples beside its patch; those of patches that `mask` [batch, tokens] hides are zeros to it.
        """
        batch, samples, _ = audio.shape
        tokens = samples // self.samples_per_patch
        features = audio.reshape(batch, tokens, self.samples_per_patch)
        if self.log_mel is not None:
            if mask is not None:
                features = features.masked_fill(mask[..., None] == 0, 0.0)
            features = self.log_mel(features)
        return self.positions.beside(features, (tokens,))


class LabelInputAdapter(nn.Module):
    """Class probabilities [batch, classes] as one token [batch, 1, classes]."""

    def __init__(self, config: LabelInput) -> None:
        super().__init__()
        self.channels = config.classes

    def forward(self, label: Tensor) -> Tensor:
        """Add the axis of tokens."""
        return label[:, None]


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
