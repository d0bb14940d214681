"""Find out what a checkpoint is and load it: a directory, a pickle, a shipped name, or a Hugging Face hub name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, get_args

from perceiver_deploy.bundle.bundle import sha256
from perceiver_deploy.errors import CheckpointError, MissingError, requires
from perceiver_deploy.model.checkpoints.haiku.reader import load_haiku
from perceiver_deploy.model.checkpoints.huggingface.reader import load_huggingface
from perceiver_deploy.model.checkpoints.krasserm.lightning import read_lightning
from perceiver_deploy.model.checkpoints.krasserm.reader import load_krasserm
from perceiver_deploy.model.checkpoints.lucidrains.reader import load_lucidrains
from perceiver_deploy.model.checkpoints.own import CONFIG_NAME, load_native
from perceiver_deploy.model.checkpoints.tensors import PICKLE_NAME, SAFETENSORS_NAME, read_tensors
from perceiver_deploy.model.config import FORMAT
from perceiver_deploy.model.tasks.catalogue import PerceiverModel

Form = Literal["native", "huggingface", "haiku", "krasserm", "lucidrains"]
"""Whose form a checkpoint is in: ours, Hugging Face's, DeepMind's pickle, or that of two PyTorch packages."""

SHIPPED = Path(__file__).parent / "shipped"
_PICKLES = (".pickle", ".pystate")
_LIGHTNING = ".ckpt"
_LIGHTNING_KEYS = {"encoder", "decoder", "num_latents", "num_latent_channels"}
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def load_checkpoint(checkpoint: str | Path, form: Form | None = None) -> PerceiverModel:
    """Load a model, in eval mode and float32.

    Args:
        checkpoint: a directory with `config.json` and weights, a DeepMind pickle (`.pickle`, `.pystate`), a Lightning
            file of krasserm's perceiver-io (`.ckpt`), the name of a shipped checkpoint, or a hub name.
        form: whose form it is in; auto-detected by default.

    Raises:
        CheckpointError: nothing there, or not a Perceiver.
        MissingError: a hub name, and the hub cannot be reached.
    """
    path = find_checkpoint(checkpoint)
    form = form or _find_form(path)
    if form == "haiku":
        return load_haiku(path)
    if form == "krasserm" and path.is_file():
        tensors, parameters = read_lightning(path)
        return load_krasserm(tensors, path, parameters)
    if path.is_file():
        raise CheckpointError(f"{path} is a file; a checkpoint of {form} is a directory with weights.")
    if form == "native":
        return load_native(path, _read_config(path))
    if form == "huggingface":
        return load_huggingface(path, _read_config(path))
    if form == "krasserm":
        return load_krasserm(read_tensors(path), path, _read_config(path))
    options = _read_config(path) if (path / CONFIG_NAME).exists() else None
    return load_lucidrains(read_tensors(path), path, options)


def find_checkpoint(checkpoint: str | Path) -> Path:
    """Directory or pickle of a checkpoint given by path, shipped name or hub name (which is downloaded)."""
    path, name = Path(checkpoint), str(checkpoint)
    if not name:
        raise CheckpointError("The name of the checkpoint is empty. Give a directory, a shipped name or a hub name.")
    if path.exists():
        return path
    if (SHIPPED / name / CONFIG_NAME).exists() and path.name == name:
        return SHIPPED / name
    if _HUB_NAME.fullmatch(name):
        return _download(name)
    raise CheckpointError(f"{checkpoint} does not exist. Shipped checkpoints: {', '.join(shipped_names())}.")


def describe_origin(checkpoint: Path) -> dict[str, str]:
    """Name, weights file and digest of a checkpoint, without naming this machine."""
    names = (SAFETENSORS_NAME, PICKLE_NAME)
    candidates = [checkpoint] if checkpoint.is_file() else [checkpoint / name for name in names]
    weights = next(file for file in candidates if file.exists())
    return {"name": checkpoint.resolve().name, "file": weights.name, "sha256": sha256(weights)}


def _find_form(path: Path) -> Form:
    """Whose form a checkpoint is in, from its configuration, else from the names of its tensors."""
    if path.is_file():
        if path.suffix in _PICKLES:
            return "haiku"
        if path.suffix == _LIGHTNING:
            return "krasserm"
        raise CheckpointError(
            f"{path} is a file; a checkpoint is a directory with {CONFIG_NAME} and weights, DeepMind's "
            f"{' or '.join(_PICKLES)}, or krasserm's {_LIGHTNING}."
        )
    document = _read_config(path) if (path / CONFIG_NAME).exists() else {}
    model_type = document.get("model_type")
    if document.get("format") == FORMAT:
        return "native"
    if model_type == "perceiver":
        return "huggingface"
    if str(model_type).startswith(("perceiver-io-", "perceiver-ar-")) or document.keys() >= _LIGHTNING_KEYS:
        return "krasserm"
    if model_type is not None:
        raise CheckpointError(
            f"{path / CONFIG_NAME} is not of a Perceiver: model_type is {model_type!r}, expected 'perceiver' (Hugging "
            f"Face), 'perceiver-io-...' (krasserm) or a 'format' of {FORMAT!r} (ours)."
        )
    names = read_tensors(path).keys()
    if any(name.endswith("0.latent_provider._query") for name in names):
        return "krasserm"
    if any(name.endswith(".to_kv.weight") for name in names):
        return "lucidrains"
    raise CheckpointError(
        f"{path} is not a checkpoint of a Perceiver: neither a {CONFIG_NAME} nor the names of its tensors say so. Name "
        f"its form with --format ({', '.join(get_args(Form))}) if it is one."
    )


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
