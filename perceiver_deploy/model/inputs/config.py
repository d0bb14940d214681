"""Configuration of what a model takes: one dataclass an input adapter, and the two kinds of positions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PositiveInt

from perceiver_deploy.model.positions import FourierPositions, Positions

_FORBID_EXTRA = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class TextInput:
    """Token embeddings plus learned positions."""

    __pydantic_config__ = _FORBID_EXTRA
    vocab_size: int
    max_length: int
    channels: int
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class ImageInput:
    """Pixels, as they are or through a stem, concatenated with positions.

    `stem`: "pixels" (none), "conv1x1" (one 1x1 convolution) or "conv" (7x7 convolution, batch norm, ReLU, max pool:
    a quarter of height and width). `stem_channels` is None for "pixels".
    `stem_padding` of "conv": "fixed" (3 pixels a side before the convolution, none before the pool, as in Hugging Face:
    224 pixels become 55) or "same" (TensorFlow's SAME for both, as in DeepMind's code: 224 pixels become 56).
    """

    __pydantic_config__ = _FORBID_EXTRA
    stem: Literal["pixels", "conv1x1", "conv"]
    positions: Positions
    stem_channels: int | None = None
    image_size: tuple[int, int] = (224, 224)
    image_channels: int = 3
    stem_padding: Literal["fixed", "same"] = "fixed"
    kind: Literal["image"] = "image"

    def __post_init__(self) -> None:
        if (self.stem == "pixels") != (self.stem_channels is None):
            raise ValueError(f"stem {self.stem!r} with stem_channels {self.stem_channels}: only 'pixels' has none")
        if self.stem != "conv" and self.stem_padding != "fixed":
            raise ValueError(f"stem {self.stem!r} with stem_padding {self.stem_padding!r}: only 'conv' pads")


@dataclass(frozen=True)
class FlowInput:
    """Two frames as 3x3 patches of RGB (27 channels a pixel), projected to `channels`, with positions."""

    __pydantic_config__ = _FORBID_EXTRA
    positions: FourierPositions
    channels: int = 64
    image_size: tuple[int, int] = (368, 496)
    kind: Literal["flow"] = "flow"


@dataclass(frozen=True)
class VideoInput:
    """Frames cut into patches of `patch_size` x `patch_size` pixels of one frame, with positions.

    `clip` is the usual number of frames, height and width in pixels.
    """

    __pydantic_config__ = _FORBID_EXTRA
    positions: FourierPositions
    patch_size: int = 4
    clip: tuple[int, int, int] = (16, 224, 224)
    kind: Literal["video"] = "video"


@dataclass(frozen=True)
class LogMel:
    """A log-mel spectrogram: `num_mels` bands from 0 Hz to half the sample rate, of `window` samples a frame.

    `floor` is the least power that is told from silence; white noise of variance 1 has a power of 1 in every band.
    """

    __pydantic_config__ = _FORBID_EXTRA
    sample_rate: PositiveInt
    num_mels: PositiveInt
    window: PositiveInt
    floor: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise ValueError(f"floor {self.floor}, expected more than 0 and less than 1")


@dataclass(frozen=True)
class AudioInput:
    """Sound in patches of `samples_per_patch`, with positions. `samples` is the usual number of them.

    A token is the raw samples of its patch, or with `log_mel` the spectrum around it.
    """

    __pydantic_config__ = _FORBID_EXTRA
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


@dataclass(frozen=True)
class LabelInput:
    """Class probabilities as one token."""

    __pydantic_config__ = _FORBID_EXTRA
    classes: int
    kind: Literal["label"] = "label"


@dataclass(frozen=True)
class PointsInput:
    """Points in space, as Fourier features of their coordinates. `points` is the usual number of them."""

    __pydantic_config__ = _FORBID_EXTRA
    positions: FourierPositions
    points: int = 2048
    kind: Literal["points"] = "points"


@dataclass(frozen=True)
class EntitiesInput:
    """A set of feature vectors, projected to `channels`. `entities` is the usual number of them.

    With `max_entities` each place has a learned embedding, which bounds how many there may be; without, order has no
    meaning.
    """

    __pydantic_config__ = _FORBID_EXTRA
    features: int
    channels: int
    entities: int = 32
    max_entities: int | None = None
    kind: Literal["entities"] = "entities"


@dataclass(frozen=True)
class TokensInput:
    """Tokens as they are, of `channels` channels. `tokens` and `queries` are the usual numbers of them."""

    __pydantic_config__ = _FORBID_EXTRA
    channels: PositiveInt
    tokens: PositiveInt = 512
    queries: PositiveInt = 128
    kind: Literal["tokens"] = "tokens"


@dataclass(frozen=True)
class MultimodalInput:
    """Modalities side by side: tokens of each padded with a trainable vector to the widest plus `min_padding`.

    While training, a token is replaced by a trainable one with its modality's probability in `mask_probabilities`. In
    eval nothing is random: a modality that was always masked stays so, the others are never masked.
    """

    __pydantic_config__ = _FORBID_EXTRA
    modalities: dict[str, Annotated[VideoInput | AudioInput | LabelInput, Field(discriminator="kind")]]
    min_padding: int = 2
    mask_probabilities: dict[str, float] = field(default_factory=dict)
    kind: Literal["multimodal"] = "multimodal"


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
