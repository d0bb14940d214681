"""Train: run a recipe and write a checkpoint with its recipe, metrics and digest."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from perceiver_deploy.bundle.bundle import sha256
from perceiver_deploy.data.datasets import DataSet, load_dataset
from perceiver_deploy.data.metrics import Measured, Run, collect_outputs, measure
from perceiver_deploy.errors import CheckpointError, UsageError
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.model.checkpoints.load import describe_origin, find_checkpoint, load_checkpoint
from perceiver_deploy.model.checkpoints.own import save_checkpoint
from perceiver_deploy.model.checkpoints.tensors import SAFETENSORS_NAME
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.tasks.catalogue import PerceiverModel, build_model
from perceiver_deploy.pipeline.finetuning import start_from
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.checks.inputs import check_inputs
from perceiver_deploy.runtimes.eager import EagerSession
from perceiver_deploy.train.catalogue import find_recipe
from perceiver_deploy.train.loop import STATE, fit

RECORD = "training.json"


@dataclass(frozen=True)
class TrainingResult:
    """The metrics on the test split, those of the baseline, and what it took.

    `final_loss` is None where a finished run was resumed.
    """

    checkpoint: str
    recipe: str
    seed: int
    steps: int
    final_loss: float | None
    metrics: tuple[Measured, ...]
    baseline: str
    baseline_metrics: tuple[Measured, ...]
    seconds: float
    parameters: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def train_recipe(
    name: str,
    output: str | Path,
    *,
    origin: str | Path | None = None,
    keep_head: bool = False,
    seed: int = 0,
    resume: bool = False,
) -> TrainingResult:
    """Train by a recipe, and write `config.json`, `model.safetensors` and `training.json` into `output`.

    Several processes, started by `torchrun` or `accelerate launch`, share each batch; the first of them writes.

    Args:
        name: the recipe.
        output: folder of the checkpoint. A saved state in it is gone on from with `resume`, and gives the numbers of
            a run that was not stopped.
        origin: checkpoint to start from (see `start_from`); by default weights are initialised anew.
        keep_head: refuse an origin whose head cannot be kept.
        seed: of initialisation, data order, transforms and dropout.
        resume: go on.

    Raises:
        UsageError: no such recipe.
        CheckpointError: `output` has files and `resume` is False, or its state is of another run; or the origin does
            not fit the recipe.
        InputError: the recipe's data does not fit the origin, as texts longer than its table.
    """
    recipe = find_recipe(name)
    directory = Path(output)
    torch.manual_seed(seed)
    data = load_dataset(recipe.data)
    model, source = _initial_model(_with_preprocessing(recipe.config, data), origin, keep_head=keep_head)
    check_inputs(data.test.rows(slice(None)), model.signature.stage.inputs, model.signature.axes)
    settings = {"recipe": name, "seed": seed, "from": source, **recipe.hyperparameters}
    state = PartialState()
    if state.is_main_process:
        _prepare(directory, {**settings, "config": json.loads(model.config.to_json())}, resume=resume)
    state.wait_for_everyone()
    log.info("Training %s: %d examples, %d steps", name, len(data.train), recipe.steps)
    started = time.perf_counter()
    if origin is None and recipe.initialize is not None:
        torch.manual_seed(seed)
        recipe.initialize(model, data.train)
    losses = fit(model, recipe, data.train, seed=seed, directory=directory)
    seconds = time.perf_counter() - started
    metrics = _measure(EagerSession(model, model.signature.stage, model.signature.axes).run, data)
    baseline = recipe.baseline(data)
    if state.is_main_process:
        save_checkpoint(model, directory)
    state.wait_for_everyone()
    result = TrainingResult(
        checkpoint=str(directory),
        recipe=name,
        seed=seed,
        steps=recipe.steps,
        final_loss=losses.values[-1] if losses.values else None,
        metrics=metrics,
        baseline=baseline.name,
        baseline_metrics=_measure(baseline.run, data),
        seconds=seconds,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        sha256=sha256(directory / SAFETENSORS_NAME),
    )
    record = {
        **result.to_json(),
        "from": source,
        "data": {"name": data.name, "source": data.source, "license": data.license},
        "hyperparameters": recipe.hyperparameters,
        "environment": describe_environment(),
    }
    del record["checkpoint"]
    if state.is_main_process:
        (directory / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return result


def _with_preprocessing(config: PerceiverConfig, data: DataSet) -> PerceiverConfig:
    """The configuration with the data set's preprocessing where it states none: it may hold numbers of the data."""
    return config if config.preprocessing is not None else replace(config, preprocessing=data.preprocessing)


def _measure(run: Run, data: DataSet) -> tuple[Measured, ...]:
    return measure(collect_outputs(run, data.test), data.test, data.metrics)


def _initial_model(
    config: PerceiverConfig, origin: str | Path | None, *, keep_head: bool
) -> tuple[PerceiverModel, dict[str, str] | None]:
    """The model before training, and the checkpoint that it starts from, if any."""
    if origin is None:
        if keep_head:
            raise UsageError("There is no head to keep: name the checkpoint to start from with --from.")
        return build_model(config), None
    checkpoint = find_checkpoint(origin)
    model = start_from(load_checkpoint(checkpoint), config, str(origin), keep_head=keep_head)
    return model, describe_origin(checkpoint)


def _prepare(directory: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Make the folder, and refuse to mix runs."""
    run = json.dumps(settings, sort_keys=True)
    marker = directory / "run.json"
    if directory.exists() and any(directory.iterdir()):
        if not resume:
            raise CheckpointError(f"{directory} has files already. Choose another folder, or go on with --resume.")
        if not marker.exists() or marker.read_text(encoding="utf-8") != run:
            raise CheckpointError(
                f"{directory} holds a run with another recipe, seed, origin or configuration, which cannot be resumed "
                f"as this one. Its settings are in {marker}; its state is in {directory / STATE}."
            )
    directory.mkdir(parents=True, exist_ok=True)
    marker.write_text(run, encoding="utf-8")
