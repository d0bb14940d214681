"""Configuration of a Perceiver IO as dataclasses, written to and read from `config.json`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.manifest import Preprocessing, Task

FORMAT = "perceiver-deploy"
FORMAT_VERSION = 1
_FORBID_EXTRA = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class AttentionConfig:
    """One attention layer with its MLP. None takes the published default.

    `qk_channels`: channels of the key/value input (cross-attention) or of the latents (self-attention).
    `v_channels`: as many as `qk_channels`.
    """

    __pydantic_config__ = _FORBID_EXTRA
    num_heads: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    widening_factor: int = 1
    use_query_residual: bool = True


@dataclass(frozen=True)
class EncoderConfig:
    """One cross-attention, then `num_blocks` times the same `num_self_attends_per_block` layers."""

    __pydantic_config__ = _FORBID_EXTRA
    num_latents: int
    d_latents: int
    num_blocks: int
    num_self_attends_per_block: int
    cross_attention: AttentionConfig
    self_attention: AttentionConfig


@dataclass(frozen=True)
class DecoderConfig:
    """`num_queries` trainable queries, one cross-attention, and a projection unless `output_channels` is None."""

    __pydantic_config__ = _FORBID_EXTRA
    num_queries: int
    query_channels: int
    cross_attention: AttentionConfig
    output_channels: int | None


@dataclass(frozen=True)
class FourierPositions:
    """sin and cos of positions in [-1, 1] at `num_bands` frequencies from 1 to half of `max_resolution`."""

    __pydantic_config__ = _FORBID_EXTRA
    num_bands: int
    max_resolution: tuple[int, ...]
    kind: Literal["fourier"] = "fourier"


@dataclass(frozen=True)
class LearnedPositions:
    """A trainable table over a grid of `index_dims`, projected to `projection_channels` unless that is None."""

    __pydantic_config__ = _FORBID_EXTRA
    index_dims: tuple[int, ...]
    channels: int
    projection_channels: int | None = None
    kind: Literal["learned"] = "learned"


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
    """

    __pydantic_config__ = _FORBID_EXTRA
    stem: Literal["pixels", "conv1x1", "conv"]
    positions: Annotated[FourierPositions | LearnedPositions, Field(discriminator="kind")]
    stem_channels: int | None = None
    image_size: tuple[int, int] = (224, 224)
    image_channels: int = 3
    kind: Literal["image"] = "image"

    def __post_init__(self) -> None:
        if (self.stem == "pixels") != (self.stem_channels is None):
            raise ValueError(f"stem {self.stem!r} with stem_channels {self.stem_channels}: only 'pixels' has none")


@dataclass(frozen=True)
class Semantics:
    """Where published implementations differ.

    `activation`: exact GELU (Hugging Face) or its tanh approximation (DeepMind).
    `fully_masked_rows`: attention over inputs that are all masked gives "zeros" (DeepMind) or the "mean" of the
    values (Hugging Face, whose additive mask cancels in the softmax).
    """

    __pydantic_config__ = _FORBID_EXTRA
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu_tanh"
    fully_masked_rows: Literal["zeros", "mean"] = "zeros"
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True)
class PerceiverConfig:
    """Everything needed to build a model but its weights, and what a user needs around it (labels, preprocessing)."""

    __pydantic_config__ = _FORBID_EXTRA
    task: Task
    input: Annotated[TextInput | ImageInput, Field(discriminator="kind")]
    encoder: EncoderConfig
    decoder: DecoderConfig
    semantics: Semantics = field(default_factory=Semantics)
    dropout: float = 0.0
    initializer_range: float = 0.02
    labels: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        kind = "image" if self.task == "image_classification" else "text"
        if self.input.kind != kind:
            raise ValueError(f"task {self.task!r} takes {kind} input, the configuration has {self.input.kind!r}")
        if self.input.kind == "text" and self.task == "masked_lm" and self.decoder.num_queries < self.input.max_length:
            raise ValueError(
                f"decoder.num_queries {self.decoder.num_queries} is less than input.max_length {self.input.max_length}"
            )
        if self.labels is not None and len(self.labels) != self.decoder.output_channels:
            raise ValueError(f"{len(self.labels)} labels for {self.decoder.output_channels} outputs")

    def to_json(self) -> str:
        """Text of `config.json`, ending in a newline."""
        document = {"format": FORMAT, "format_version": FORMAT_VERSION, **_ADAPTER.dump_python(self, mode="json")}
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_document(cls, document: dict[str, Any], where: str) -> PerceiverConfig:
        """Build from the parsed `config.json`.

        Raises:
            CheckpointError: a newer format version, or a field that is missing, unknown or of the wrong kind.
        """
        document = dict(document)
        document.pop("format", None)
        version = document.pop("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{where} has format_version {version}; this perceiver-deploy reads {FORMAT_VERSION}. Upgrade it."
            )
        try:
            return _ADAPTER.validate_python(document)
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(str(part) for part in problem["loc"])
            raise CheckpointError(
                f"{where} is not a Perceiver configuration: {place or 'configuration'}: "
                f"{problem['msg'].removeprefix('Value error, ')}."
            ) from None

    def with_labels(self, labels: tuple[str, ...] | None) -> PerceiverConfig:
        """The same configuration with other labels."""
        return dataclasses.replace(self, labels=labels)


_ADAPTER = TypeAdapter(PerceiverConfig)
