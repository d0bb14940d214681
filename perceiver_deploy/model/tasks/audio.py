"""Classification of sound."""

from __future__ import annotations

from torch import Tensor

from perceiver_deploy.bundle.manifest import Axis, Signature, TensorSpec
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.inputs.audio import AudioInput, AudioInputAdapter
from perceiver_deploy.model.perceiver import Classifier
from perceiver_deploy.model.tasks.signatures import classifier_signature, mask_spec


class AudioClassifier(Classifier):
    """Sound to class logits."""

    def __init__(self, config: PerceiverConfig) -> None:
        assert isinstance(config.input, AudioInput)
        adapter = AudioInputAdapter(config.input)
        super().__init__(config, adapter, adapter.channels)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes; the mask has one entry per patch."""
        assert isinstance(self.config.input, AudioInput)
        axes, audio = audio_input(self.config.input)
        mask = mask_spec("batch", f"samples/{self.config.input.samples_per_patch}")
        return classifier_signature(self.config, axes, audio, mask)

    def forward(self, audio: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`audio` [batch, samples, 1], `attention_mask` [batch, samples / patch] to `logits` [batch, classes]."""
        return self.decode(**self.encode(audio, attention_mask))

    def encode(self, audio: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`audio`, `attention_mask` to `latents`."""
        return {"latents": self.encoder(self.input_adapter(audio, attention_mask), attention_mask)}


def audio_input(config: AudioInput) -> tuple[dict[str, Axis], TensorSpec]:
    """Axis and specification of `audio`."""
    patch = config.samples_per_patch
    axes = {"samples": Axis(min=patch, opt=config.samples, multiple_of=patch)}
    return axes, TensorSpec(name="audio", dtype="float32", shape=("batch", "samples", 1))
