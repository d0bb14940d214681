"""Log-mel spectrogram of raw samples, inside the model, so that an exported graph needs no preprocessing.

Float32 at least, whatever the dtype of the model: quiet bands are far below what half precision resolves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, PositiveInt
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class LogMel:
    """A log-mel spectrogram: `num_mels` bands from 0 Hz to half the sample rate, of `window` samples per frame.

    `floor` is the least power that is told from silence; white noise of variance 1 has a power of 1 in every band.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    sample_rate: PositiveInt
    num_mels: PositiveInt
    window: PositiveInt
    floor: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise ValueError(f"floor {self.floor}, expected more than 0 and less than 1")


class LogMelSpectrogram(nn.Module):
    """Samples in patches [batch, tokens, samples_per_patch] to one frame per patch [batch, tokens, num_mels].

    A frame is `window` samples around its patch, zeros beyond the ends of the sound, under a periodic Hann window. Its
    power spectrum, in which white noise has its variance in every bin, is averaged by the filters of
    `mel_filters`; the logarithm of that is scaled so that `floor`, and all below, is -1 and a power of 1 is 1.

    Both linear steps are convolutions: their weights are constants, and INT8, which would not span the range of a
    power spectrum, leaves convolutions alone.
    """

    def __init__(self, config: LogMel, samples_per_patch: int) -> None:
        super().__init__()
        self.hop = samples_per_patch
        self.floor = config.floor
        before = (config.window - samples_per_patch) // 2
        self.padding = (before, config.window - samples_per_patch - before)
        # plain tensors, because a buffer would change its dtype with the model's
        self._transform = torch.tensor(windowed_dft(config.window), dtype=torch.float32, device="cpu")
        self._filters = torch.tensor(mel_filters(config), dtype=torch.float32, device="cpu")

    def forward(self, patches: Tensor) -> Tensor:
        """Compute, in float32 under autocast too; the result has the dtype of `patches`."""
        if torch.is_autocast_enabled(patches.device.type):
            with torch.autocast(patches.device.type, enabled=False):
                return self._compute(patches)
        return self._compute(patches)

    def _compute(self, patches: Tensor) -> Tensor:
        dtype = torch.promote_types(patches.dtype, torch.float32)
        transform, filters = (table.to(patches.device, dtype)[..., None] for table in (self._transform, self._filters))
        padded = functional.pad(patches.to(dtype).flatten(1)[:, None], self.padding)
        real, imaginary = functional.conv1d(padded, transform.transpose(1, 2), stride=self.hop).chunk(2, dim=1)
        power = functional.conv1d(real * real + imaginary * imaginary, filters)
        scaled = 1 - 2 * torch.log(power.clamp(min=self.floor)) / math.log(self.floor)
        return scaled.transpose(1, 2).to(patches.dtype)


def windowed_dft(window: int) -> NDArray[np.float64]:
    """Rows of a discrete Fourier transform under a Hann window of unit energy, [2 * bins, window].

    First the real parts, then the imaginary ones, of bins 0 to window // 2.
    """
    index = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * index / window)
    angles = 2 * np.pi / window * np.outer(np.arange(window // 2 + 1), index)
    return np.concatenate([np.cos(angles), -np.sin(angles)]) * hann / np.sqrt((hann**2).sum())


def mel_filters(config: LogMel) -> NDArray[np.float64]:
    """Triangles evenly spaced in mel from 0 Hz to half the sample rate, each of sum 1, [num_mels, bins].

    The mel of HTK: 2595 log10(1 + Hz / 700) (Young et al., The HTK Book, section 5.4).

    Raises:
        ValueError: a triangle falls between two bins.
    """
    nyquist = config.sample_rate / 2
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + nyquist / 700), config.num_mels + 2) / 2595) - 1)
    left, centre, right = (edges[offset : offset + config.num_mels, None] for offset in range(3))
    bins = np.arange(config.window // 2 + 1) * (config.sample_rate / config.window)
    filters = np.maximum(0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
    sums = filters.sum(axis=1, keepdims=True)
    if not sums.all():
        raise ValueError(f"num_mels {config.num_mels} is too many for a window of {config.window} samples")
    return filters / sums
