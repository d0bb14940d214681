"""The arguments of a model of lucidrains' perceiver-pytorch, from the `config.json` beside its state dict."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.strict import first_problem

_DETECTION_KEYS = ("format", "model_type")
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
INPUT_SIZES = {1: (1024,), 2: (224, 224), 3: (16, 56, 56)}
"""What a graph is traced and tuned at, by number of axes, where there is no `input_size`; any size runs."""

Kind = Literal["Perceiver", "PerceiverIO", "PerceiverLM"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Arguments that all its models have, with their defaults."""

    __pydantic_config__ = _STRICT
    depth: PositiveInt
    num_latents: PositiveInt = 512
    latent_dim: PositiveInt = 512
    cross_heads: PositiveInt = 1
    latent_heads: PositiveInt = 8
    cross_dim_head: PositiveInt = 64
    latent_dim_head: PositiveInt = 64
    weight_tie_layers: bool = False
    inverted_cross_attn: bool | list[bool] = False
    attn_residual: bool = False
    attn_residual_rank: PositiveInt = 64


@dataclass(frozen=True, kw_only=True)
class PerceiverOptions(Options):
    """Arguments of `Perceiver`, and `input_size`: the usual length of each input axis."""

    __pydantic_config__ = _STRICT
    num_freq_bands: PositiveInt
    max_freq: PositiveFloat
    input_channels: PositiveInt = 3
    input_axis: int = 2
    num_classes: PositiveInt = 1000
    attn_dropout: float = 0.0
    ff_dropout: float = 0.0  # acts in training only, where we have one rate for attention alone
    fourier_encode_data: bool = True
    self_per_cross_attn: NonNegativeInt = 1
    final_classifier_head: bool = True
    input_size: list[PositiveInt] | None = None


@dataclass(frozen=True, kw_only=True)
class PerceiverIOOptions(Options):
    """Arguments of `PerceiverIO`."""

    __pydantic_config__ = _STRICT
    dim: PositiveInt
    queries_dim: PositiveInt
    logits_dim: PositiveInt | None = None
    decoder_ff: bool = False
    seq_dropout_prob: float = 0.0  # drops tokens, in training only


@dataclass(frozen=True, kw_only=True)
class PerceiverLMOptions(Options):
    """Arguments of `PerceiverLM`."""

    __pydantic_config__ = _STRICT
    dim: PositiveInt
    num_tokens: PositiveInt
    max_seq_len: PositiveInt
    decoder_ff: bool = False
    seq_dropout_prob: float = 0.0  # drops tokens, in training only


_OPTIONS: dict[Kind, type[Options]] = {
    "Perceiver": PerceiverOptions,
    "PerceiverIO": PerceiverIOOptions,
    "PerceiverLM": PerceiverLMOptions,
}


def parse_options(kind: Kind, options: dict[str, Any] | None, where: Path) -> Options:
    """The arguments in a parsed `config.json`, or None where there is none.

    Raises:
        CheckpointError: one is missing, unknown, of another kind or not supported.
    """
    known = fields(_OPTIONS[kind])
    if options is None:
        needed = ", ".join(field.name for field in known if field.default is MISSING)
        raise CheckpointError(
            f"{where} is a state dict of perceiver-pytorch without its arguments: put a config.json beside it with "
            f"those that its {kind} was built with, at least {needed}."
        )
    try:
        arguments = {key: value for key, value in options.items() if key not in _DETECTION_KEYS}
        parsed = TypeAdapter(_OPTIONS[kind]).validate_json(json.dumps(arguments))  # strict, yet builds a dataclass
    except ValidationError as error:
        raise CheckpointError(
            f"The config.json of {where} does not hold the arguments of a {kind} of perceiver-pytorch: "
            f"{first_problem(error, 'arguments')}. Known are {', '.join(field.name for field in known)}."
        ) from None
    _refuse_unsupported(parsed, where)
    return parsed


def _refuse_unsupported(options: Options, where: Path) -> None:
    inverted = options.inverted_cross_attn
    problems = {
        "inverted_cross_attn": any(inverted) if isinstance(inverted, list) else inverted,
        "attn_residual": options.attn_residual,
    }
    if isinstance(options, PerceiverOptions):
        size, axes = options.input_size, options.input_axis
        problems |= {
            "fourier_encode_data false: data without our positions fits no task": not options.fourier_encode_data,
            "final_classifier_head false: a model without its head gives no answer": not options.final_classifier_head,
            f"input_axis {axes}: expected 1, 2 or 3": axes not in INPUT_SIZES,
            f"input_channels {options.input_channels} with input_axis 3: expected 3": axes == 3
            and options.input_channels != 3,
            f"input_size {size}: expected one positive length for each of {axes} axes": size is not None
            and len(size) != axes,
        }
    for problem, found in problems.items():
        if found:
            raise CheckpointError(f"{where} was built with an argument that is not supported: {problem}.")
