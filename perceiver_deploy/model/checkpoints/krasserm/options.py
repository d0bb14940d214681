"""The configuration of krasserm's perceiver-io 0.11: one dataclass a section, with that package's names and defaults.

Source: perceiver/model/{core,text,vision} of perceiver-io 0.11.0 on PyPI. Fields that act in training only
(`freeze`, `residual_dropout`, `params`, activation checkpointing) are read and change nothing here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from perceiver_deploy.errors import CheckpointError

_T = TypeVar("_T")
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class SectionOptions:
    """What encoders and decoders of all tasks have; channels that are None follow the rules of the task."""

    __pydantic_config__ = _STRICT
    num_cross_attention_heads: PositiveInt = 8
    num_cross_attention_qk_channels: PositiveInt | None = None
    num_cross_attention_v_channels: PositiveInt | None = None
    cross_attention_widening_factor: PositiveInt = 1
    dropout: float = 0.0
    residual_dropout: float = 0.0
    init_scale: float = 0.02
    freeze: bool = False


@dataclass(frozen=True)
class EncoderOptions(SectionOptions):
    """What the encoders of all tasks have."""

    __pydantic_config__ = _STRICT
    num_cross_attention_layers: PositiveInt = 1
    first_cross_attention_layer_shared: bool = False
    num_self_attention_heads: PositiveInt = 8
    num_self_attention_qk_channels: PositiveInt | None = None
    num_self_attention_v_channels: PositiveInt | None = None
    num_self_attention_layers_per_block: PositiveInt = 8
    num_self_attention_blocks: PositiveInt = 1
    first_self_attention_block_shared: bool = True
    self_attention_widening_factor: PositiveInt = 1


@dataclass(frozen=True)
class TextEncoderOptions(EncoderOptions):
    """Token embeddings plus learned positions."""

    __pydantic_config__ = _STRICT
    vocab_size: PositiveInt = 10003
    max_seq_len: PositiveInt = 256
    num_input_channels: PositiveInt = 64
    params: str | None = None


@dataclass(frozen=True)
class ImageEncoderOptions(EncoderOptions):
    """Pixels with Fourier positions; `image_shape` is height, width, channels."""

    __pydantic_config__ = _STRICT
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (224, 224, 3)
    num_frequency_bands: PositiveInt = 32


@dataclass(frozen=True)
class FlowEncoderOptions(EncoderOptions):
    """Patches of two frames with Fourier positions."""

    __pydantic_config__ = _STRICT
    image_shape: tuple[PositiveInt, PositiveInt] = (368, 496)
    num_patch_input_channels: PositiveInt = 27
    num_patch_hidden_channels: PositiveInt = 64
    num_frequency_bands: PositiveInt = 64


@dataclass(frozen=True)
class DecoderOptions(SectionOptions):
    """What the decoders of all tasks have."""

    __pydantic_config__ = _STRICT
    cross_attention_residual: bool = True


@dataclass(frozen=True)
class TextDecoderOptions(DecoderOptions):
    """One trainable query a position; the output weights are the token embeddings unless there are query channels."""

    __pydantic_config__ = _STRICT
    num_output_query_channels: PositiveInt | None = None
    vocab_size: PositiveInt = 10003
    max_seq_len: PositiveInt = 512


@dataclass(frozen=True)
class ClassificationDecoderOptions(DecoderOptions):
    """Trainable queries and a linear classifier."""

    __pydantic_config__ = _STRICT
    num_output_queries: PositiveInt = 1
    num_output_query_channels: PositiveInt = 256
    num_classes: PositiveInt = 100


@dataclass(frozen=True)
class FlowDecoderOptions(DecoderOptions):
    """Queries are the adapted inputs; the flow is divided by `rescale_factor`."""

    __pydantic_config__ = _STRICT
    image_shape: tuple[PositiveInt, PositiveInt] = (368, 496)
    rescale_factor: PositiveFloat = 100.0


Kind = Literal["masked_lm", "text_classification", "image_classification", "optical_flow"]
_SECTIONS: dict[Kind, tuple[type[EncoderOptions], type[DecoderOptions]]] = {
    "masked_lm": (TextEncoderOptions, TextDecoderOptions),
    "text_classification": (TextEncoderOptions, ClassificationDecoderOptions),
    "image_classification": (ImageEncoderOptions, ClassificationDecoderOptions),
    "optical_flow": (FlowEncoderOptions, FlowDecoderOptions),
}


@dataclass(frozen=True)
class KrassermOptions:
    """A whole configuration."""

    encoder: EncoderOptions
    decoder: DecoderOptions
    num_latents: int
    num_latent_channels: int

    def __post_init__(self) -> None:
        if min(self.num_latents, self.num_latent_channels) < 1:
            raise ValueError(f"num_latents {self.num_latents}, num_latent_channels {self.num_latent_channels}")


def parse_options(kind: Kind, document: dict[str, Any], where: Path) -> KrassermOptions:
    """The configuration in a `config.json`: `model_config` of the Hugging Face form, else Lightning's parameters.

    Raises:
        CheckpointError: a field is missing, unknown or of another kind.
    """
    config = document.get("model_config", document)
    if not isinstance(config, dict):
        raise CheckpointError(f"The configuration of {where} has a model_config that is not a JSON object.")
    encoder, decoder = _SECTIONS[kind]
    return KrassermOptions(
        _read(encoder, "encoder", config, where),
        _read(decoder, "decoder", config, where),
        _read(int, "num_latents", config, where),
        _read(int, "num_latent_channels", config, where),
    )


def _read(wanted: type[_T], name: str, config: dict[str, Any], where: Path) -> _T:
    if name not in config:
        raise CheckpointError(f"The configuration of {where} lacks {name}, which perceiver-io writes.")
    try:
        return TypeAdapter(wanted).validate_json(json.dumps(config[name]), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        path = ".".join(str(part) for part in (name, *problem["loc"]))
        raise CheckpointError(
            f"The configuration of {where} is not one of perceiver-io 0.11: {path}: {problem['msg']}."
        ) from None
