"""State dicts of lucidrains' perceiver-pytorch: its `Perceiver`, with the constructor's arguments in a JSON file.

perceiver-pytorch saves no configuration, so what a state dict does not show (heads, frequencies) comes from a
`config.json` beside it. Source: perceiver-pytorch 0.8.8 and 0.11.0 on PyPI, which name their tensors differently.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.manifest import Task
from perceiver_deploy.model.checkpoints.lucidrains_options import INPUT_SIZES, LucidrainsOptions, parse_options
from perceiver_deploy.model.checkpoints.tensors import assign_tensors, build_on_meta
from perceiver_deploy.model.config import (
    AttentionConfig,
    EncoderConfig,
    MeanDecoderConfig,
    PerceiverConfig,
    Semantics,
    Sharing,
)
from perceiver_deploy.model.input_config import AudioInput, FourierPositions, ImageInput, Input, VideoInput
from perceiver_deploy.model.perceiver import PerceiverModel

_WIDENING_FACTOR = 4  # FeedForward(mult=4), which no argument changes


def load_lucidrains(tensors: dict[str, Tensor], where: Path, options: dict[str, Any] | None) -> PerceiverModel:
    """Build the `Perceiver` of a state dict and give it every tensor.

    `where` names the checkpoint in messages; `options` is its `config.json`, parsed, or None where there is none.
    Input of 2 axes makes an image classifier (`pixel_values` [batch, channels, height, width], not channels last), of
    1 axis an audio classifier with `input_channels` samples a token, of 3 axes and 3 channels a video classifier.

    Raises:
        CheckpointError: arguments that are missing, unknown, not supported or contradict the tensors; tensors that
            are missing, left over or of another shape; a `PerceiverIO` or `PerceiverLM`.
    """
    _refuse_perceiver_io(tensors, where)
    parsed = parse_options(options, where)
    if parsed.weight_tie_layers:
        tensors = _merge_tied(tensors, where)
    _refuse_contradictions(parsed, tensors, where)
    model = build_on_meta(_config(parsed), where)
    names = {name: _tensor_name(name, blocks="layers.0.0.norm.weight" not in tensors) for name in model.state_dict()}
    assign_tensors(model, _split_keys_and_values(tensors), names, where)
    return model.eval()


def _refuse_perceiver_io(tensors: dict[str, Tensor], where: Path) -> None:
    if any(name.startswith("perceiver_io.") for name in tensors):
        raise CheckpointError(
            f"{where} is a PerceiverLM of perceiver-pytorch, whose output queries are the embedded tokens; no task "
            "here decodes text so. Of perceiver-pytorch, Perceiver can be loaded."
        )
    if any(name.startswith("decoder_cross_attn.") for name in tensors):
        raise CheckpointError(
            f"{where} is a PerceiverIO of perceiver-pytorch, which takes ready tokens and queries as arguments of its "
            "forward; the state dict says neither how inputs become tokens nor what is asked, so it fits no task. "
            "Of perceiver-pytorch, Perceiver can be loaded."
        )


def _merge_tied(tensors: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Tensors with layers 2, 3 ... merged into layer 1, whose weights they share; a file may hold them or not."""
    merged: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = re.sub(r"^layers\.[1-9]\d*\.", "layers.1.", name)
        if own in merged and not merged[own].equal(tensor):
            raise CheckpointError(f"{where}: weight_tie_layers is true, but {name} differs from other layers' weights.")
        merged[own] = tensor
    return merged


def _refuse_contradictions(options: LucidrainsOptions, tensors: dict[str, Tensor], where: Path) -> None:
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
    layers = {int(match[1]) for name in tensors if (match := re.match(r"layers\.(\d+)\.", name))}
    expected = min(options.depth, 2) if options.weight_tie_layers else options.depth
    if layers and len(layers) != expected:
        raise CheckpointError(
            f"{where}: depth {options.depth} with weight_tie_layers {options.weight_tie_layers} makes {expected} "
            f"layers of own weights, but the file holds {len(layers)}."
        )


def _config(options: LucidrainsOptions) -> PerceiverConfig:
    def attention(heads: int, head_size: int) -> AttentionConfig:
        channels = heads * head_size
        return AttentionConfig(heads, channels, channels, widening_factor=_WIDENING_FACTOR, qkv_bias=False)

    sharing: Sharing = "from_second" if options.weight_tie_layers else "none"
    task, inputs = _task_and_input(options)
    return PerceiverConfig(
        task=task,
        input=inputs,
        encoder=EncoderConfig(
            num_latents=options.num_latents,
            d_latents=options.latent_dim,
            num_blocks=options.depth,
            num_self_attends_per_block=options.self_per_cross_attn,
            cross_attention=attention(options.cross_heads, options.cross_dim_head),
            self_attention=attention(options.latent_heads, options.latent_dim_head),
            num_cross_attentions=options.depth,
            cross_attention_sharing=sharing,
            block_sharing=sharing,
        ),
        decoder=MeanDecoderConfig(options.num_classes, norm=True),
        semantics=Semantics("geglu", fully_masked_rows="mean"),
        dropout=options.attn_dropout,
        initializer_range=1.0,
    )


def _task_and_input(options: LucidrainsOptions) -> tuple[Task, Input]:
    axes = options.input_axis
    size = tuple(options.input_size or INPUT_SIZES[axes])
    positions = FourierPositions(options.num_freq_bands, (options.max_freq,) * axes, order="by_dimension")
    if axes == 1:
        return "audio_classification", AudioInput(positions, size[0] * options.input_channels, options.input_channels)
    if axes == 2:
        image = ImageInput("pixels", positions, image_size=(size[0], size[1]), image_channels=options.input_channels)
        return "image_classification", image
    return "video_classification", VideoInput(positions, patch_size=1, clip=(size[0], size[1], size[2]))


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


_ATTENTION_NAMES = {
    "query_norm": "norm",
    "key_value_norm": "norm_context",
    "query": "fn.to_q",
    "key": "fn.to_kv",
    "value": "fn.to_kv",
    "output": "fn.to_out",
}
_FEED_FORWARD_NAMES = {"mlp_norm": "norm", "mlp.0": "fn.net.0", "mlp.2": "fn.net.2"}
_HALVES = {"key": "[keys]", "value": "[values]"}


def _tensor_name(name: str, *, blocks: bool) -> str:
    """perceiver-pytorch's name of one of our tensors; from 0.11 its layers are `blocks` with names, before lists."""
    if name == "encoder.latents":
        return "latents"
    if name.startswith("decoder."):
        return name.replace("decoder.norm", "to_logits.1").replace("decoder.projection", "to_logits.2")
    match = re.fullmatch(
        r"encoder\.(?:cross_attention|later_cross_attentions\.(?P<cross>\d+)|self_attends\.(?P<first>\d+)|"
        r"later_blocks\.(?P<block>\d+)\.(?P<layer>\d+))\.(?P<part>\w+(?:\.\d)?)\.(?P<leaf>weight|bias)",
        name,
    )
    assert match is not None, name
    later = match["cross"] or match["block"]
    index = 0 if later is None else int(later) + 1
    layer, part = match["first"] or match["layer"], match["part"]
    is_attention = part in _ATTENTION_NAMES
    if layer is None:
        module = ("cross_attn" if is_attention else "cross_ff") if blocks else ("0" if is_attention else "1")
    else:
        module = f"{'self_attns' if blocks else '2'}.{layer}.{0 if is_attention else 1}"
    theirs = _ATTENTION_NAMES[part] if is_attention else _FEED_FORWARD_NAMES[part]
    return f"layers.{index}.{module}.{theirs}.{match['leaf']}{_HALVES.get(part, '')}"
