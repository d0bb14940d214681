"""State dicts of lucidrains' perceiver-pytorch, with the constructor's arguments in a JSON file.

perceiver-pytorch saves no configuration, so what a state dict does not show (heads, frequencies) comes from a
`config.json` beside it. Source: perceiver-pytorch 0.8.8 and 0.11.0 on PyPI, which name their tensors differently.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.checkpoints.lucidrains.config import convert_options
from perceiver_deploy.model.checkpoints.lucidrains.names import prefix_of, tensor_name
from perceiver_deploy.model.checkpoints.lucidrains.options import Kind, Options, PerceiverOptions, parse_options
from perceiver_deploy.model.checkpoints.tensors import assign_tensors, build_on_meta
from perceiver_deploy.model.tasks.catalogue import PerceiverModel

_LAYER = re.compile(r"\blayers\.(\d+)\.")


def load_lucidrains(tensors: dict[str, Tensor], where: Path, options: dict[str, Any] | None) -> PerceiverModel:
    """Build the model of a state dict and give it every tensor.

    `where` names the checkpoint in messages; `options` is its `config.json`, parsed, or None where there is none.
    The tensors say which model it is. `Perceiver` with input of 2 axes makes an image classifier (`pixel_values`
    [batch, channels, height, width], not channels last), of 1 axis an audio classifier with `input_channels` samples a
    token, of 3 axes and 3 channels a video classifier. `PerceiverIO` makes a model of the task `tokens`: its data and
    queries are inputs there as they are arguments here. `PerceiverLM` makes a masked language model.

    Raises:
        CheckpointError: arguments that are missing, unknown, not supported or contradict the tensors; tensors that
            are missing, left over or of another shape.
    """
    kind = _find_kind(tensors)
    parsed = parse_options(kind, options, where)
    if isinstance(parsed, PerceiverOptions):
        _refuse_contradictions(parsed, tensors, where)
    tensors = _merge_tied(tensors, parsed, where)
    model = build_on_meta(convert_options(parsed), where)
    blocks = f"{prefix_of(kind)}layers.0.0.norm.weight" not in tensors
    names = {name: tensor_name(name, kind, blocks=blocks) for name in model.state_dict()}
    assign_tensors(model, _split_keys_and_values(tensors), names, where)
    return model.eval()


def _find_kind(tensors: dict[str, Tensor]) -> Kind:
    if any(name.startswith(prefix_of("PerceiverLM")) for name in tensors):
        return "PerceiverLM"
    return "PerceiverIO" if any(name.startswith("decoder_cross_attn.") for name in tensors) else "Perceiver"


def _refuse_contradictions(options: PerceiverOptions, tensors: dict[str, Tensor], where: Path) -> None:
    """Name the argument where a tensor is visibly of another model; `assign_tensors` finds whatever is left."""
    cross = "layers.0.0" if "layers.0.0.norm.weight" in tensors else "layers.0.cross_attn"
    latent = "layers.0.2.0.0" if cross == "layers.0.0" else "layers.0.self_attns.0.0"
    cross_channels = options.cross_heads * options.cross_dim_head
    latent_channels = options.latent_heads * options.latent_dim_head
    input_channels = options.input_channels + options.input_axis * (2 * options.num_freq_bands + 1)
    for argument, expected, name, axis in (
        ("num_latents", options.num_latents, "latents", 0),
        ("latent_dim", options.latent_dim, "latents", 1),
        ("num_classes", options.num_classes, "to_logits.2.weight", 0),
        ("cross_heads * cross_dim_head", cross_channels, f"{cross}.fn.to_q.weight", 0),
        ("latent_heads * latent_dim_head", latent_channels, f"{latent}.fn.to_q.weight", 0),
        ("input_channels + input_axis * (2 * num_freq_bands + 1)", input_channels, f"{cross}.fn.to_kv.weight", 1),
    ):
        shape = tensors[name].shape if name in tensors else ()
        if len(shape) == 2 and shape[axis] != expected:
            raise CheckpointError(
                f"{where}: {argument} is {expected} in config.json, or by default where it is not there, but {name} "
                f"is {list(shape)}."
            )


def _merge_tied(tensors: dict[str, Tensor], options: Options, where: Path) -> dict[str, Tensor]:
    """Tensors with the layers that share weights merged into the first of them; a file may hold all of them or one.

    A `Perceiver` ties its layers from the second on, the others tie all.
    """
    distinct = options.depth
    if options.weight_tie_layers:
        distinct = min(distinct, 2 if isinstance(options, PerceiverOptions) else 1)
    layers = {int(match[1]) for name in tensors if (match := _LAYER.search(name))}
    if layers and len(layers) not in (distinct, options.depth):
        raise CheckpointError(
            f"{where}: depth {options.depth} with weight_tie_layers {options.weight_tie_layers} makes {distinct} "
            f"layers of own weights, but the file holds {len(layers)}."
        )
    if not options.weight_tie_layers:
        return tensors
    merged: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = _LAYER.sub(lambda match: f"layers.{min(int(match[1]), distinct - 1)}.", name, count=1)
        if own in merged and not merged[own].equal(tensor):
            raise CheckpointError(f"{where}: weight_tie_layers is true, but {name} differs from other layers' weights.")
        merged[own] = tensor
    return merged


def _split_keys_and_values(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each `to_kv.weight` [2 * channels, inputs] as `to_kv.weight[keys]` and `to_kv.weight[values]`."""
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".to_kv.weight") and tensor.ndim == 2:
            keys, values = tensor.tensor_split(2)
            split[f"{name}[keys]"], split[f"{name}[values]"] = keys.clone(), values.clone()  # to be saved one by one
        else:
            split[name] = tensor
    return split
