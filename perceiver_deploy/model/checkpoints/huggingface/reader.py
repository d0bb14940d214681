"""Checkpoints of Hugging Face's Perceiver classes: `config.json` and their state dict, nothing of transformers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from perceiver_deploy.model.checkpoints.huggingface.config import convert_config
from perceiver_deploy.model.checkpoints.tensors import assign_tensors, build_on_meta, read_tensors
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.tasks.catalogue import PerceiverModel


def load_huggingface(directory: Path, document: dict[str, Any]) -> PerceiverModel:
    """Build the model of a Hugging Face `config.json` (parsed: `document`) and give it every tensor of the file.

    Raises:
        CheckpointError: a class we do not know, a value we cannot honour, or tensors that do not fit.
    """
    config = convert_config(document, directory)
    model = build_on_meta(config, directory / "config.json")
    names = {name: _tensor_name(name, config) for name in model.state_dict()}
    assign_tensors(model, read_tensors(directory), names, directory)
    return model.eval()


_LAYER_NAMES = {
    "query_norm": "attention.self.layernorm1",
    "key_value_norm": "attention.self.layernorm2",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "mlp_norm": "layernorm",
    "mlp.0": "mlp.dense1",
    "mlp.2": "mlp.dense2",
}
_INPUT_NAMES = {
    "embeddings": "embeddings",
    "position_embeddings": "position_embeddings",
    "positions.table": "position_embeddings.position_embeddings",
    "positions.projection": "positions_projection",
    "stem.conv": "convnet.conv",
    "stem.batch_norm": "convnet.batchnorm",
    "stem": "convnet_1x1",
    "projection": "conv_after_patches",
    "padding": "padding",
    "mask": "mask",
}
_LABEL_QUERY = "perceiver.decoder.modalities.label.decoder.output_position_encodings.position_embeddings"


def _tensor_name(name: str, config: PerceiverConfig) -> str:
    """Hugging Face's name of one of our tensors."""
    decoder = "perceiver.decoder" if config.task == "masked_lm" else "perceiver.decoder.decoder"
    if name == "output_bias":
        return "embedding_decoder.bias"
    if name == "encoder.latents":
        return "perceiver.embeddings.latents"
    if name == "decoder.queries":
        return f"{decoder}.output_position_encodings.position_embeddings"
    if name == "output_queries.label":
        return _LABEL_QUERY
    if name.startswith("output_queries.padding."):
        return name.replace("output_queries", "perceiver.decoder")
    if name.startswith("outputs."):
        _, modality, parameter = name.split(".")
        return f"perceiver.output_postprocessor.modalities.{modality}.classifier.{parameter}"
    if name.startswith("decoder.projection."):
        return name.replace("decoder.projection", f"{decoder}.final_layer")
    if name.startswith("input_adapter."):
        return f"perceiver.input_preprocessor.{_replace_prefix(name.removeprefix('input_adapter.'), _INPUT_NAMES)}"
    match = re.fullmatch(r"(encoder\.cross_attention|encoder\.self_attends\.\d+|decoder\.cross_attention)\.(.+)", name)
    assert match is not None, name
    layer = match[1].replace("decoder.cross_attention", f"{decoder}.decoding_cross_attention")
    prefix = "" if layer.startswith("perceiver.") else "perceiver."
    return f"{prefix}{layer}.{_replace_prefix(match[2], _LAYER_NAMES)}"


def _replace_prefix(name: str, table: dict[str, str]) -> str:
    for ours, theirs in table.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    raise AssertionError(name)
