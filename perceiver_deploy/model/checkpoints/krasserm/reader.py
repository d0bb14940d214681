"""Checkpoints of krasserm's perceiver-io 0.11: its Hugging Face form and the state dicts of its Lightning modules.

Source: perceiver-io 0.11.0 on PyPI.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.checkpoints.krasserm.config import convert_options
from perceiver_deploy.model.checkpoints.krasserm.options import Kind, parse_options
from perceiver_deploy.model.checkpoints.tensors import assign_tensors, build_on_meta
from perceiver_deploy.model.config import DecoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.flow import FlowInput
from perceiver_deploy.model.inputs.image import ImageInput
from perceiver_deploy.model.positions import build_positions
from perceiver_deploy.model.tasks.catalogue import PerceiverModel

_KINDS: dict[str, Kind] = {
    "perceiver-io-masked-language-model": "masked_lm",
    "perceiver-io-text-classifier": "text_classification",
    "perceiver-io-image-classifier": "image_classification",
    "perceiver-io-optical-flow": "optical_flow",
}
_PREFIXES = ("backend_model.", "model.")
_POSITIONS = "0.input_adapter.position_encoding.position_encoding"
# Stored in float16 a position is rounded by 5e-4; of other frequencies it would differ by about 1.
_POSITIONS_TOLERANCE = 1e-2


def load_krasserm(tensors: dict[str, Tensor], where: Path, document: dict[str, Any]) -> PerceiverModel:
    """Build the model of a configuration and give it every tensor.

    `where` names the checkpoint in messages. `document` is the parsed `config.json` of the Hugging Face form, or a
    Lightning module's hyperparameters (`encoder`, `decoder`, `num_latents`, `num_latent_channels`), which name no
    task: it is then read off the tensors. Images are channels first here, channels last there; `attention_mask` is
    the inverse of their `pad_mask`.

    Raises:
        CheckpointError: a model that is not one of theirs or not supported, a value that cannot be honoured, or
            tensors that do not fit.
    """
    prefix = next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in tensors)), "")
    kind = _find_kind(document, {name.removeprefix(prefix) for name in tensors}, where)
    try:
        config = convert_options(kind, parse_options(kind, document, where), _labels(document))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"The configuration of {where} has a value that cannot be used: {error}.") from error
    model = build_on_meta(config, where)
    names = {name: prefix + _tensor_name(name, config) for name in model.state_dict()}
    assign_tensors(model, _without_positions(tensors, prefix, config, where), names, where)
    return model.eval()


def _find_kind(document: dict[str, Any], names: set[str], where: Path) -> Kind:
    model_type = document.get("model_type")
    if model_type in _KINDS:
        return _KINDS[model_type]
    if isinstance(model_type, str):
        raise CheckpointError(
            f"{where} has the model_type {model_type!r}; of perceiver-io these are supported: {', '.join(_KINDS)}."
        )
    if "0.input_adapter.txt_embedding.weight" in names and "1.output_query_provider._query" in names:
        # without tied embeddings a language model has the tensors of a classifier
        decoder = document.get("decoder")
        is_language_model = "1.output_adapter.bias" in names or (isinstance(decoder, dict) and "vocab_size" in decoder)
        return "masked_lm" if is_language_model else "text_classification"
    if "0.input_adapter.linear.weight" in names:
        return "optical_flow"
    if "0.latent_provider._query" in names:
        return "image_classification"
    raise CheckpointError(f"{where} holds no tensors of a text, image or optical flow model of perceiver-io.")


def _labels(document: dict[str, Any]) -> tuple[str, ...] | None:
    if document.get("id2label") is None:
        return None
    by_index = {int(index): str(label) for index, label in document["id2label"].items()}
    return tuple(by_index[index] for index in range(len(by_index)))


def _without_positions(
    tensors: dict[str, Tensor], prefix: str, config: PerceiverConfig, where: Path
) -> dict[str, Tensor]:
    """The tensors but for the buffer of Fourier positions, once that is what we compute."""
    name = prefix + _POSITIONS
    if name not in tensors or not isinstance(config.input, ImageInput | FlowInput):
        return tensors
    encoding = build_positions(config.input.positions, config.initializer_range)
    expected, found = encoding(config.input.image_size, torch.zeros(())), tensors[name]
    if found.shape != expected.shape:
        raise CheckpointError(f"{where}: {name} is {list(found.shape)}, expected {list(expected.shape)}.")
    if not torch.allclose(found.float(), expected, rtol=0, atol=_POSITIONS_TOLERANCE):
        raise CheckpointError(f"{where}: {name} does not hold the Fourier positions of its configuration.")
    return {key: tensor for key, tensor in tensors.items() if key != name}


_NAMES = {
    "encoder.latents": "0.latent_provider._query",
    "decoder.queries": "1.output_query_provider._query",
    "decoder.projection.weight": "1.output_adapter.linear.weight",
    "decoder.projection.bias": "1.output_adapter.linear.bias",
    "output_bias": "1.output_adapter.bias",
    "input_adapter.embeddings.weight": "0.input_adapter.txt_embedding.weight",
    "input_adapter.position_embeddings.weight": "0.input_adapter.pos_embedding.weight",
    "input_adapter.projection.weight": "0.input_adapter.linear.weight",
    "input_adapter.projection.bias": "0.input_adapter.linear.bias",
}
_LAYERS = {
    "encoder.cross_attention": "0.cross_attn_1",
    "encoder.later_cross_attentions.0": "0.cross_attn_n",
    "encoder.self_attends": "0.self_attn_1",
    "encoder.later_blocks.0": "0.self_attn_n",
    "decoder.cross_attention": "1.cross_attn",
}
_ATTENTION_NAMES = {
    "key_value_norm": "kv_norm",
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "output": "attention.o_proj",
}
_MLP_NAMES = {"mlp_norm": "0", "mlp.0": "1", "mlp.2": "3"}


def _tensor_name(name: str, config: PerceiverConfig) -> str:
    """perceiver-io's name of one of our tensors, without the prefix of its form."""
    if name in _NAMES:
        return _NAMES[name]
    match = re.fullmatch(
        rf"({'|'.join(map(re.escape, _LAYERS))})(?:\.(\d+))?\.({'|'.join(_ATTENTION_NAMES)}|query_norm|mlp_norm|"
        r"mlp\.\d)\.(\w+)",
        name,
    )
    assert match is not None, name
    ours, index, part, leaf = match.groups()
    layer = _LAYERS[ours] if index is None else f"{_LAYERS[ours]}.{index}"
    if part in _MLP_NAMES:
        return f"{layer}.1.module.{_MLP_NAMES[part]}.{leaf}"
    assert isinstance(config.decoder, DecoderConfig)
    residual = ours != "decoder.cross_attention" or config.decoder.cross_attention.use_query_residual
    theirs = ("q_norm" if index is None else "norm") if part == "query_norm" else _ATTENTION_NAMES[part]
    return f"{layer}.0.{'module.' if residual else ''}{theirs}.{leaf}"
