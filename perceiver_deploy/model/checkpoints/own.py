"""Our own checkpoints: a directory of `config.json` and `model.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from perceiver_deploy.model.checkpoints.tensors import SAFETENSORS_NAME, assign_tensors, build_on_meta, read_tensors
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.tasks.catalogue import PerceiverModel

CONFIG_NAME = "config.json"


def save_checkpoint(model: PerceiverModel, directory: Path) -> None:
    """Write `config.json` and `model.safetensors` (float32) into an existing directory."""
    save_weights(model, directory)
    (directory / CONFIG_NAME).write_text(model.config.to_json(), encoding="utf-8")


def save_weights(model: nn.Module, directory: Path) -> None:
    """Write `model.safetensors` into an existing directory."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    partial = directory / f"{SAFETENSORS_NAME}.partial"
    partial.write_bytes(save(tensors))
    partial.replace(directory / SAFETENSORS_NAME)


def load_native(directory: Path, document: dict[str, Any]) -> PerceiverModel:
    """Build the model of `config.json` (parsed: `document`) and give it its weights."""
    config = PerceiverConfig.from_document(document, str(directory / CONFIG_NAME))
    model = build_on_meta(config, directory / CONFIG_NAME)
    assign_tensors(model, read_tensors(directory), {name: name for name in model.state_dict()}, directory)
    return model.eval()
