"""perceiver-pytorch's names of our tensors: those of 0.8.8, whose layers are lists, and of 0.11.0, whose are blocks."""

from __future__ import annotations

import re

from perceiver_deploy.model.checkpoints.lucidrains.options import Kind

_PREFIXES: dict[Kind, str] = {"Perceiver": "", "PerceiverIO": "", "PerceiverLM": "perceiver_io."}
# (whether of an IO model, whether of blocks) to the modules of attention and MLP of each layer
_PLACES: dict[tuple[bool, bool], dict[str, tuple[str, str]]] = {
    (False, False): {
        "cross": ("layers.{block}.0", "layers.{block}.1"),
        "latent": ("layers.{block}.2.{layer}.0", "layers.{block}.2.{layer}.1"),
    },
    (False, True): {
        "cross": ("layers.{block}.cross_attn", "layers.{block}.cross_ff"),
        "latent": ("layers.{block}.self_attns.{layer}.0", "layers.{block}.self_attns.{layer}.1"),
    },
    (True, False): {
        "cross": ("cross_attend_blocks.0", "cross_attend_blocks.1"),
        "latent": ("layers.{layer}.0", "layers.{layer}.1"),
    },
    (True, True): {
        "cross": ("cross_attend_block.cross_attn", "cross_attend_block.cross_ff"),
        "latent": ("layers.{layer}.self_attns.0.0", "layers.{layer}.self_attns.0.1"),
    },
}
_DECODER = ("decoder_cross_attn", "decoder_ff")
_ATTENTION_NAMES = {
    "query_norm": "norm",
    "key_value_norm": "norm_context",
    "query": "fn.to_q",
    "key": "fn.to_kv",
    "value": "fn.to_kv",
    "output": "fn.to_out",
}
_MLP_NAMES = {"mlp_norm": "norm", "mlp.0": "fn.net.0", "mlp.2": "fn.net.2"}
_HALVES = {"key": "[keys]", "value": "[values]"}
_EMBEDDINGS = {
    "input_adapter.embeddings.weight": "token_emb.weight",
    "input_adapter.position_embeddings.weight": "pos_emb.weight",
}
_LAYER = re.compile(
    r"(?:encoder\.(?P<cross>cross_attention|later_cross_attentions\.(?P<later_cross>\d+))|"
    r"encoder\.(?:self_attends|later_blocks\.(?P<later_block>\d+))\.(?P<layer>\d+)|decoder\.cross_attention)"
    r"\.(?P<part>\w+(?:\.\d)?)\.(?P<leaf>weight|bias)"
)


def prefix_of(kind: Kind) -> str:
    """What the names of all tensors but embeddings begin with."""
    return _PREFIXES[kind]


def tensor_name(name: str, kind: Kind, *, blocks: bool) -> str:
    """Their name of one of our tensors; keys and values are halves of one tensor, `[keys]` and `[values]`."""
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name]
    return _PREFIXES[kind] + _name_in_perceiver(name, is_io=kind != "Perceiver", blocks=blocks)


def _name_in_perceiver(name: str, *, is_io: bool, blocks: bool) -> str:
    if name == "encoder.latents":
        return "latents"
    if name.startswith("decoder.norm."):
        return name.replace("decoder.norm", "to_logits.1")
    if name.startswith("decoder.projection."):
        return name.replace("decoder.projection", "to_logits" if is_io else "to_logits.2")
    match = _LAYER.fullmatch(name)
    assert match is not None, name
    part, later = match["part"], match["later_cross"] or match["later_block"]
    places = _PLACES[is_io, blocks]
    place = places["cross"] if match["cross"] else places["latent"] if match["layer"] else _DECODER
    is_mlp = part in _MLP_NAMES
    module = place[is_mlp].format(block=0 if later is None else int(later) + 1, layer=match["layer"])
    return f"{module}.{(_MLP_NAMES if is_mlp else _ATTENTION_NAMES)[part]}.{match['leaf']}{_HALVES.get(part, '')}"
