"""Lightning's files of krasserm's perceiver-io: one pickle of a state dict, its hyperparameters and training state.

Source: files of pytorch-lightning 2.0.9 with the modules of perceiver-io 0.11.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.checkpoints.tensors import is_state_dict, load_pickle


class _Section:
    """Stands in for the dataclasses of a configuration: takes their fields and does nothing."""


_SECTIONS = (
    "perceiver.model.core.config.ClassificationDecoderConfig",
    "perceiver.model.text.common.backend.TextEncoderConfig",
    "perceiver.model.text.mlm.backend.TextDecoderConfig",
    "perceiver.model.vision.image_classifier.backend.ImageEncoderConfig",
)


def read_lightning(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and hyperparameters of a `.ckpt` file, whose classes are not imported.

    Raises:
        CheckpointError: the file cannot be read, names anything but these classes, or holds something else.
    """
    content = load_pickle(path, [(_Section, name) for name in _SECTIONS])
    content = content if isinstance(content, dict) else {}
    tensors, parameters = content.get("state_dict"), content.get("hyper_parameters")
    if not is_state_dict(tensors) or not isinstance(parameters, dict):
        raise CheckpointError(
            f"{path} is not a file of a Lightning module of perceiver-io: expected a dict with 'state_dict' and "
            f"'hyper_parameters', found {', '.join(map(repr, list(content)[:5])) or 'something else'}."
        )
    return tensors, {key: vars(value) if isinstance(value, _Section) else value for key, value in parameters.items()}
