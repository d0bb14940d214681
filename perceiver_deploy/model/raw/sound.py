"""Classification of raw sound."""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver_deploy.bundle.manifest import Axis, Signature
from perceiver_deploy.bundle.preprocessing import AudioPreprocessing
from perceiver_deploy.model.raw.wrapping import RawModel, pcm_spec, sound_of
from perceiver_deploy.model.tasks.catalogue import PerceiverModel


class RawAudioModel(RawModel):
    """`pcm` [batch, samples] of any length, cut or filled up to what the model takes, with the mask of what counts.

    The sounds of a batch have one length. Samples are not filled up to whole patches only, as positions depend on how
    many patches there are.
    """

    def __init__(self, model: PerceiverModel, preprocessing: AudioPreprocessing) -> None:
        super().__init__(model)
        self.preprocessing = preprocessing

    @property
    def signature(self) -> Signature:
        """No mask: it follows from the number of samples."""
        return self._raw_signature(
            {"audio": pcm_spec(), "attention_mask": None}, {"samples": Axis(opt=self.preprocessing.samples)}
        )

    def forward(self, pcm: Tensor) -> dict[str, Tensor]:
        """The outputs of the model."""
        batch, samples = pcm.shape
        sound = sound_of(pcm, self._dtype)
        whole = torch.cat([sound, sound.new_zeros(batch, self.preprocessing.samples)], dim=1)
        audio = whole.narrow(1, 0, self.preprocessing.samples)[..., None]
        starts = torch.arange(0, self.preprocessing.samples, self.preprocessing.samples_per_patch, device=pcm.device)
        mask = (starts < samples).to(torch.int64).expand(batch, -1)
        outputs: dict[str, Tensor] = self.wrapped(audio, mask)
        return outputs
