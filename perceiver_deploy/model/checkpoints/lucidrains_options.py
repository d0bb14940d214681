"""The arguments of a `Perceiver` of lucidrains' perceiver-pytorch, from the `config.json` beside its state dict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from perceiver_deploy.errors import CheckpointError

_DETECTION_KEYS = ("format", "model_type")
INPUT_SIZES = {1: (1024,), 2: (224, 224), 3: (16, 56, 56)}
"""What a graph is traced and tuned at, by number of axes, where there is no `input_size`; any size runs."""


@dataclass(frozen=True)
class LucidrainsOptions:
    """Arguments of `Perceiver` with its defaults, and `input_size`: the usual length of each input axis."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    num_freq_bands: PositiveInt
    depth: PositiveInt
    max_freq: PositiveFloat
    input_channels: PositiveInt = 3
    input_axis: int = 2
    num_latents: PositiveInt = 512
    latent_dim: PositiveInt = 512
    cross_heads: PositiveInt = 1
    latent_heads: PositiveInt = 8
    cross_dim_head: PositiveInt = 64
    latent_dim_head: PositiveInt = 64
    num_classes: PositiveInt = 1000
    attn_dropout: float = 0.0
    ff_dropout: float = 0.0  # acts in training only, where we have one rate for attention alone
    weight_tie_layers: bool = False
    fourier_encode_data: bool = True
    self_per_cross_attn: NonNegativeInt = 1
    final_classifier_head: bool = True
    inverted_cross_attn: bool | list[bool] = False
    attn_residual: bool = False
    attn_residual_rank: PositiveInt = 64
    input_size: list[PositiveInt] | None = None


def parse_options(options: dict[str, Any] | None, where: Path) -> LucidrainsOptions:
    """The arguments in a parsed `config.json`, or None where there is none.

    Raises:
        CheckpointError: one is missing, unknown, of another kind or not supported.
    """
    if options is None:
        raise CheckpointError(
            f"{where} is a state dict of perceiver-pytorch without its arguments: put a config.json beside it with "
            "those that its Perceiver was built with, num_freq_bands, depth and max_freq at least."
        )
    try:
        arguments = {key: value for key, value in options.items() if key not in _DETECTION_KEYS}
        parsed = _ADAPTER.validate_json(json.dumps(arguments))  # strict, yet builds a dataclass
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise CheckpointError(
            f"The config.json of {where} does not hold the arguments of a Perceiver of perceiver-pytorch: {place}: "
            f"{problem['msg']}. Known are {', '.join(LucidrainsOptions.__dataclass_fields__)}."
        ) from None
    _refuse_unsupported(parsed, where)
    return parsed


def _refuse_unsupported(options: LucidrainsOptions, where: Path) -> None:
    inverted = options.inverted_cross_attn
    size = options.input_size
    problems = {
        "fourier_encode_data false: data without our positions fits no task": not options.fourier_encode_data,
        "final_classifier_head false: a model without its head gives no answer": not options.final_classifier_head,
        "inverted_cross_attn": any(inverted) if isinstance(inverted, list) else inverted,
        "attn_residual": options.attn_residual,
        f"input_axis {options.input_axis}: expected 1, 2 or 3": options.input_axis not in INPUT_SIZES,
        f"input_channels {options.input_channels} with input_axis 3: expected 3": options.input_axis == 3
        and options.input_channels != 3,
        f"input_size {size}: expected one positive length for each of {options.input_axis} axes": size is not None
        and len(size) != options.input_axis,
    }
    for problem, found in problems.items():
        if found:
            raise CheckpointError(f"{where} was built with an argument that is not supported: {problem}.")


_ADAPTER = TypeAdapter(LucidrainsOptions)
