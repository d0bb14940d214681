"""Read named tensors from a checkpoint directory without running anything that is in it, and assign all of them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.tasks.catalogue import PerceiverModel, build_model

SAFETENSORS_NAME = "model.safetensors"
PICKLE_NAME = "pytorch_model.bin"
_SHOWN = 5


def build_on_meta(config: PerceiverConfig, where: Path) -> PerceiverModel:
    """The configuration's model without memory for its weights.

    Raises:
        CheckpointError: the values of the configuration do not make a model.
    """
    try:
        with torch.device("meta"):
            return build_model(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where} has a value that cannot be used: {error}.") from error


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Tensors of `model.safetensors`, else of `pytorch_model.bin` (read with `weights_only`).

    Raises:
        CheckpointError: neither is there, the file is truncated, or the pickle holds more than tensors.
    """
    safetensors, pickled = directory / SAFETENSORS_NAME, directory / PICKLE_NAME
    if safetensors.exists():
        try:
            return load_file(safetensors)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{safetensors} cannot be read as safetensors ({error}). It may be truncated: copy it again."
            ) from None
    if pickled.exists():
        tensors = load_pickle(pickled)
        if not is_state_dict(tensors):
            raise CheckpointError(f"{pickled} is not a state dict: expected a dict of names to tensors.")
        return tensors
    raise CheckpointError(f"{directory} has neither {SAFETENSORS_NAME} nor {PICKLE_NAME}; it is not a checkpoint.")


def is_state_dict(content: Any) -> TypeGuard[dict[str, Tensor]]:
    """Whether this is a dict of names to tensors."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )


def load_pickle(path: Path, stand_ins: Sequence[tuple[type, str]] = ()) -> Any:
    """What torch saved: tensors, plain values, and classes of the full names in `stand_ins` as those given with them.

    Raises:
        CheckpointError: the file is truncated or holds more than that.
    """
    try:
        with torch.serialization.safe_globals(list(stand_ins)):
            return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - the one place
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} is a pickle that holds more than tensors, so it was not loaded: it could run code. "
            "Ask its author for a .safetensors file, or for one with a plain state dict."
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}). It may be truncated: copy it again."
        ) from None


def assign_tensors(model: nn.Module, tensors: Mapping[str, Tensor], names: Mapping[str, str], where: Path) -> None:
    """Give every parameter and buffer of `model` its tensor; `names` maps the model's names to the file's.

    Floating tensors become float32.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of the wrong shape; the message names it.
    """
    wanted = model.state_dict()
    missing = [names[name] for name in wanted if names[name] not in tensors]
    unexpected = sorted(tensors.keys() - {names[name] for name in wanted})
    misshaped = [
        f"{names[name]} is {list(tensors[names[name]].shape)}, expected {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if names[name] in tensors and tensors[names[name]].shape != tensor.shape
    ]
    mistyped = [
        f"{names[name]} is {tensors[names[name]].dtype}"
        for name, tensor in wanted.items()
        if names[name] in tensors and tensors[names[name]].is_floating_point() != tensor.is_floating_point()
    ]
    problems = [
        f"{len(found)} {what} ({', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''})"
        for what, found in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshaped),
            ("of another kind", mistyped),
        )
        if found
    ]
    if problems:
        raise CheckpointError(
            f"The tensors of {where} do not fit its configuration: {'; '.join(problems)}. "
            "Check that configuration and weights belong together."
        )
    state = {name: tensors[names[name]] for name in wanted}
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
