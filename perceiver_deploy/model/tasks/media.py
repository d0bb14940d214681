"""Classification of sound, of video, and of video with sound."""

from __future__ import annotations

from torch import Tensor

from perceiver_deploy.bundle.manifest import Axis, Signature, TensorSpec
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.inputs.config import AudioInput, MultimodalInput, VideoInput
from perceiver_deploy.model.inputs.media import AudioInputAdapter, MultimodalInputAdapter, VideoInputAdapter
from perceiver_deploy.model.tasks.classification import Classifier, mask_spec


class AudioClassifier(Classifier):
    """Sound to class logits."""

    def __init__(self, config: PerceiverConfig) -> None:
        assert isinstance(config.input, AudioInput)
        adapter = AudioInputAdapter(config.input)
        super().__init__(config, adapter, adapter.channels)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes; the mask has one entry a patch."""
        assert isinstance(self.config.input, AudioInput)
        axes, audio = audio_input(self.config.input)
        mask = mask_spec("batch", f"samples/{self.config.input.samples_per_patch}")
        return self.classifier_signature(axes, audio, mask)

    def forward(self, audio: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`audio` [batch, samples, 1], `attention_mask` [batch, samples / patch] to `logits` [batch, classes]."""
        return self.decode(**self.encode(audio, attention_mask))

    def encode(self, audio: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`audio`, `attention_mask` to `latents`."""
        return self.encode_tokens(self.input_adapter(audio, attention_mask), attention_mask)


class VideoClassifier(Classifier):
    """Frames to class logits."""

    def __init__(self, config: PerceiverConfig) -> None:
        assert isinstance(config.input, VideoInput)
        adapter = VideoInputAdapter(config.input)
        super().__init__(config, adapter, adapter.channels)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        assert isinstance(self.config.input, VideoInput)
        axes, image = video_input(self.config.input)
        return self.classifier_signature(axes, image)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """`image` [batch, frames, 3, height, width] to `logits` [batch, classes]."""
        return self.decode(**self.encode(image))

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """`image` to `latents`."""
        return self.encode_tokens(self.input_adapter(image))


class AudiovisualClassifier(Classifier):
    """Frames and sound to class logits."""

    def __init__(self, config: PerceiverConfig) -> None:
        assert isinstance(config.input, MultimodalInput)
        self.video, self.audio = video_and_audio(config.input)
        adapter = MultimodalInputAdapter(config.input, config.initializer_range)
        super().__init__(config, adapter, adapter.channels)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        video_axes, image = video_input(self.video)
        audio_axes, audio = audio_input(self.audio)
        return self.classifier_signature({**video_axes, **audio_axes}, image, audio)

    def forward(self, image: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """`image` [batch, frames, 3, height, width], `audio` [batch, samples, 1] to `logits` [batch, classes]."""
        return self.decode(**self.encode(image, audio))

    def encode(self, image: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """`image`, `audio` to `latents`."""
        return self.encode_tokens(self.input_adapter({"image": image, "audio": audio}))


def video_and_audio(config: MultimodalInput) -> tuple[VideoInput, AudioInput]:
    """The modalities `image` and `audio`, or a ValueError where one is missing or of another kind."""
    image, audio = config.modalities.get("image"), config.modalities.get("audio")
    if not isinstance(image, VideoInput) or not isinstance(audio, AudioInput):
        raise ValueError("modalities needs 'image' of kind 'video' and 'audio' of kind 'audio'")
    return image, audio


def video_input(config: VideoInput) -> tuple[dict[str, Axis], TensorSpec]:
    """Axes and specification of `image`."""
    frames, height, width = config.clip
    size = config.patch_size
    axes = {
        "frames": Axis(opt=frames),
        "height": Axis(min=size, opt=height, multiple_of=size),
        "width": Axis(min=size, opt=width, multiple_of=size),
    }
    return axes, TensorSpec(name="image", dtype="float32", shape=("batch", "frames", 3, "height", "width"))


def audio_input(config: AudioInput) -> tuple[dict[str, Axis], TensorSpec]:
    """Axis and specification of `audio`."""
    patch = config.samples_per_patch
    axes = {"samples": Axis(min=patch, opt=config.samples, multiple_of=patch)}
    return axes, TensorSpec(name="audio", dtype="float32", shape=("batch", "samples", 1))
