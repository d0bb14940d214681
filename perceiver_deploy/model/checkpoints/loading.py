"""Find out what a checkpoint is and load it: a directory, a shipped name, or a Hugging Face hub name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from perceiver_deploy.errors import CheckpointError, MissingError, requires
from perceiver_deploy.model.checkpoints.huggingface import load_huggingface
from perceiver_deploy.model.checkpoints.native import CONFIG_NAME, load_native
from perceiver_deploy.model.config import FORMAT
from perceiver_deploy.model.perceiver import PerceiverModel

SHIPPED = Path(__file__).parent / "shipped"
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def load_checkpoint(checkpoint: str | Path) -> PerceiverModel:
    """Load a model, in eval mode and float32.

    `checkpoint` is a directory (ours or Hugging Face's), the name of a shipped checkpoint, or a hub name.

    Raises:
        CheckpointError: nothing there, or not a Perceiver.
        MissingError: a hub name, and the hub cannot be reached.
    """
    directory = find_checkpoint(checkpoint)
    document = _read_config(directory)
    if document.get("format") == FORMAT:
        return load_native(directory, document)
    if document.get("model_type") == "perceiver":
        return load_huggingface(directory, document)
    raise CheckpointError(
        f"{directory / CONFIG_NAME} is not of a Perceiver: model_type is {document.get('model_type')!r}, expected "
        f"'perceiver' (Hugging Face) or a 'format' of {FORMAT!r} (ours)."
    )


def find_checkpoint(checkpoint: str | Path) -> Path:
    """Directory of a checkpoint given by path, shipped name or hub name (which is downloaded)."""
    directory = Path(checkpoint)
    if not str(checkpoint):
        raise CheckpointError("The name of the checkpoint is empty. Give a directory, a shipped name or a hub name.")
    if directory.is_dir():
        return directory
    if directory.exists():
        raise CheckpointError(f"{directory} is a file; a checkpoint is a directory with {CONFIG_NAME} and weights.")
    name = str(checkpoint)
    if (SHIPPED / name / CONFIG_NAME).exists() and directory.name == name:
        return SHIPPED / name
    if _HUB_NAME.fullmatch(name):
        return _download(name)
    raise CheckpointError(f"{checkpoint} does not exist. Shipped checkpoints: {', '.join(shipped_names())}.")


def shipped_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CONFIG_NAME}"))


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{directory} is not a checkpoint: it has no {CONFIG_NAME}.") from None
    except (OSError, RecursionError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return document


def _download(name: str) -> Path:
    with requires("hf", f"{name!r} is not a local directory, and downloading it from the Hugging Face hub"):
        import huggingface_hub
    try:
        directory = huggingface_hub.snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.bin"])
    except Exception as error:  # the hub's client raises a different family for every way to fail
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise MissingError(
            f"{name!r} is not a local directory and could not be downloaded from the Hugging Face hub "
            f"({type(error).__name__}: {reason}). Give the path of a local copy."
        ) from error
    return Path(directory)
