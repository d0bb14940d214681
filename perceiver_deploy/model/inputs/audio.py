"""Sound: raw samples of patches, or their log-mel spectrum, beside their positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict
from torch import Tensor, nn

from perceiver_deploy.model.inputs.log_mel import LogMel, LogMelSpectrogram
from perceiver_deploy.model.positions import FourierEncoding, FourierPositions


@dataclass(frozen=True)
class AudioInput:
    """Sound in patches of `samples_per_patch`, with positions. `samples` is the usual number of them.

    A token is the raw samples of its patch, or with `log_mel` the spectrum around it.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    positions: FourierPositions
    samples: int
    samples_per_patch: int = 16
    log_mel: LogMel | None = None
    kind: Literal["audio"] = "audio"

    def __post_init__(self) -> None:
        if self.log_mel is not None and self.log_mel.window < self.samples_per_patch:
            raise ValueError(
                f"log_mel.window {self.log_mel.window} with samples_per_patch {self.samples_per_patch}: "
                "samples between two frames would be lost"
            )


class AudioInputAdapter(nn.Module):
    """Samples [batch, samples, 1] to one token per patch [batch, samples / samples_per_patch, channels]."""

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
