"""Video with sound: classification, and autoencoding of video, sound and label through one bottleneck."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, StageName, TensorSpec
from perceiver_deploy.model.config import DecoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.audio import AudioInput
from perceiver_deploy.model.inputs.label import LabelInput
from perceiver_deploy.model.inputs.multimodal import MultimodalInput, MultimodalInputAdapter
from perceiver_deploy.model.inputs.video import VideoInput
from perceiver_deploy.model.perceiver import Classifier, PerceiverDecoder, PerceiverEncoder
from perceiver_deploy.model.positions import FourierEncoding, indexed_positions
from perceiver_deploy.model.stages import split_signature
from perceiver_deploy.model.tasks.audio import audio_input
from perceiver_deploy.model.tasks.signatures import BATCH, classifier_signature
from perceiver_deploy.model.tasks.video import video_input

_OPT_QUERIES = 2048


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
        return classifier_signature(self.config, {**video_axes, **audio_axes}, image, audio)

    def forward(self, image: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """`image` [batch, frames, 3, height, width], `audio` [batch, samples, 1] to `logits` [batch, classes]."""
        return self.decode(**self.encode(image, audio))

    def encode(self, image: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """`image`, `audio` to `latents`."""
        return {"latents": self.encoder(self.input_adapter({"image": image, "audio": audio}))}


class MultimodalAutoencoder(nn.Module):
    """Frames, sound and label to any points of the frames, any patches of the sound, and the label.

    Points are flat indices: of pixels in [frames, height, width], of patches in the sound. One encoding can serve any
    number of them, and they can be decoded in chunks. Source: Perceiver IO, section 4.3 and appendix I.
    """

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        assert isinstance(config.input, MultimodalInput)
        assert isinstance(config.decoder, DecoderConfig)
        self.config = config
        self.video, self.audio = video_and_audio(config.input)
        label = config.input.modalities.get("label")
        if not isinstance(label, LabelInput) or config.decoder.output_channels is None:
            raise ValueError("task 'multimodal_autoencoding' needs the modality 'label' and decoder.output_channels")
        self.classes = label.classes
        self.input_adapter = MultimodalInputAdapter(config.input, config.initializer_range)
        self.encoder = PerceiverEncoder(config, self.input_adapter.channels)
        self.decoder = PerceiverDecoder(config, config.decoder)
        self.output_queries = MultimodalQueries(config)
        self.outputs = nn.ModuleDict(
            {
                "audio": nn.Linear(config.decoder.output_channels, self.audio.samples_per_patch),
                "image": nn.Linear(config.decoder.output_channels, 3),
                "label": nn.Linear(config.decoder.output_channels, label.classes),
            }
        )

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        video_axes, image = video_input(self.video)
        audio_axes, audio = audio_input(self.audio)
        patch = self.audio.samples_per_patch
        pixels = self.video.clip[0] * self.video.clip[1] * self.video.clip[2]
        axes = {
            "batch": BATCH,
            **video_axes,
            **audio_axes,
            "queries_image": Axis(opt=min(_OPT_QUERIES, pixels)),
            "queries_audio": Axis(opt=min(_OPT_QUERIES, self.audio.samples // patch)),
        }
        label = TensorSpec(name="label", dtype="float32", shape=("batch", self.classes))
        image_points = TensorSpec(
            name="image_points", dtype="int64", shape=("queries_image",), minimum=0, maximum="frames*height*width-1"
        )
        audio_points = TensorSpec(
            name="audio_points", dtype="int64", shape=("queries_audio",), minimum=0, maximum=f"samples/{patch}-1"
        )
        outputs = (
            TensorSpec(name="image_reconstruction", dtype="float32", shape=("batch", "queries_image", 3)),
            TensorSpec(name="audio_reconstruction", dtype="float32", shape=("batch", f"{patch}*queries_audio")),
            TensorSpec(name="label_logits", dtype="float32", shape=("batch", self.classes)),
        )
        stage = Stage(inputs=(image, audio, label, image_points, audio_points), outputs=outputs)
        return Signature(task=self.config.task, axes=axes, stage=stage)

    @property
    def stages(self) -> dict[StageName, Signature]:
        """The decoder takes points, and `clip_size` (frames, height, width, patches of sound), which they are in."""
        full = self.signature
        *_, image_points, audio_points = full.stage.inputs
        pixels, patches = "clip_size[0]*clip_size[1]*clip_size[2]-1", "clip_size[3]-1"
        points = (
            image_points.model_copy(update={"maximum": pixels}),
            audio_points.model_copy(update={"maximum": patches}),
        )
        clip_size = TensorSpec(name="clip_size", dtype="int64", shape=(4,), minimum=1)
        return split_signature(full, self.config, data=["image", "audio", "label"], queries=(*points, clip_size))

    def forward(
        self, image: Tensor, audio: Tensor, label: Tensor, image_points: Tensor, audio_points: Tensor
    ) -> dict[str, Tensor]:
        """Inputs and outputs are those of the signature."""
        latents = self.encode(image, audio, label)["latents"]
        patches = audio.shape[1] // self.audio.samples_per_patch
        return self._answer(
            latents, image_points, audio_points, (image.shape[1], image.shape[3], image.shape[4]), patches
        )

    def encode(self, image: Tensor, audio: Tensor, label: Tensor) -> dict[str, Tensor]:
        """`image`, `audio` and `label` to `latents`."""
        return {"latents": self.encoder(self.input_adapter({"image": image, "audio": audio, "label": label}))}

    def decode(
        self, latents: Tensor, image_points: Tensor, audio_points: Tensor, clip_size: Tensor
    ) -> dict[str, Tensor]:
        """`latents` to the signature's outputs at points of a clip of the size `clip_size` [4]."""
        frames, height, width, patches = clip_size.unbind()
        return self._answer(latents, image_points, audio_points, (frames, height, width), patches)

    def _answer(
        self,
        latents: Tensor,
        image_points: Tensor,
        audio_points: Tensor,
        grid: Sequence[int | Tensor],
        patches: int | Tensor,
    ) -> dict[str, Tensor]:
        queries = self.output_queries(image_points, audio_points, grid, patches, latents.dtype)
        decoded = self.decoder(latents, queries)
        sizes = [audio_points.shape[0], image_points.shape[0], 1]
        audio_part, image_part, label_part = torch.split(decoded, sizes, dim=1)
        return {
            "image_reconstruction": self.outputs["image"](image_part),
            "audio_reconstruction": self.outputs["audio"](audio_part).flatten(1),
            "label_logits": self.outputs["label"](label_part)[:, 0],
        }


class MultimodalQueries(nn.Module):
    """Queries [1, queries, channels] of sound, pixels and label, in this order, each padded by a trainable vector."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        assert isinstance(config.input, MultimodalInput)
        assert isinstance(config.decoder, DecoderConfig)
        video, audio = video_and_audio(config.input)
        self.audio_positions = FourierEncoding(audio.positions)
        self.image_positions = FourierEncoding(video.positions)
        widths = {
            "audio": audio.positions.channels,
            "image": video.positions.channels,
            "label": config.decoder.label_query_channels,
        }
        if max(widths.values()) > config.decoder.query_channels:
            raise ValueError(f"decoder.query_channels {config.decoder.query_channels} is less than needed: {widths}")
        self.label = nn.Parameter(torch.empty(1, config.decoder.label_query_channels))
        self.padding = nn.ParameterDict(
            {
                name: nn.Parameter(torch.empty(1, config.decoder.query_channels - width))
                for name, width in widths.items()
            }
        )
        for parameter in [self.label, *self.padding.values()]:
            nn.init.trunc_normal_(parameter, std=config.initializer_range)

    def forward(
        self,
        image_points: Tensor,
        audio_points: Tensor,
        grid: Sequence[int | Tensor],
        patches: int | Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        """Points are flat indices into `grid` (frames, height, width) and into `patches`."""
        audio = self.audio_positions.features(indexed_positions(audio_points, (patches,))).to(dtype)
        image = self.image_positions.features(indexed_positions(image_points, grid)).to(dtype)
        queries = {"audio": audio, "image": image, "label": self.label}
        padded = [
            torch.cat([query, self.padding[name].expand(query.shape[0], -1)], dim=-1) for name, query in queries.items()
        ]
        return torch.cat(padded)[None]


def video_and_audio(config: MultimodalInput) -> tuple[VideoInput, AudioInput]:
    """The modalities `image` and `audio`, or a ValueError where one is missing or of another kind."""
    image, audio = config.modalities.get("image"), config.modalities.get("audio")
    if not isinstance(image, VideoInput) or not isinstance(audio, AudioInput):
        raise ValueError("modalities needs 'image' of kind 'video' and 'audio' of kind 'audio'")
    return image, audio
