"""Train: run a recipe and write a checkpoint with its recipe, metrics and digest."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from perceiver_deploy.bundle import sha256
from perceiver_deploy.data.datasets import DataSet, load_dataset
from perceiver_deploy.data.metrics import Measured, Run, collect_outputs, measure
from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.evaluate.environment import describe_environment
from perceiver_deploy.model.checkpoints.native import save_checkpoint
from perceiver_deploy.model.checkpoints.tensors import SAFETENSORS_NAME
from perceiver_deploy.model.perceiver import build_model
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.torch import EagerSession
from perceiver_deploy.train.loop import STATE, fit
from perceiver_deploy.train.recipe import Recipe
from perceiver_deploy.train.recipes import find_recipe

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


def train_recipe(name: str, output: str | Path, *, seed: int = 0, resume: bool = False) -> TrainingResult:
    """Train by a recipe, and write `config.json`, `model.safetensors` and `training.json` into `output`.

    A saved state in `output` is gone on from with `resume`, and gives the numbers of a run that was not stopped.

    Raises:
        UsageError: no such recipe.
        CheckpointError: `output` has files and `resume` is False, or its state is of another run.
    """
    recipe = find_recipe(name)
    directory = Path(output)
    _prepare(directory, recipe, seed, resume=resume)
    data = load_dataset(recipe.data)
    torch.manual_seed(seed)
    model = build_model(recipe.config)
    log.info("Training %s: %d examples, %d steps", name, len(data.train), recipe.steps)
    started = time.perf_counter()
    losses = fit(model, recipe, data.train, seed=seed, directory=directory)
    seconds = time.perf_counter() - started
    metrics = _measure(EagerSession(model, model.signature.stage, model.signature.axes).run, data)
    baseline = recipe.baseline(data)
    save_checkpoint(model, directory)
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
        "data": {"name": data.name, "source": data.source, "license": data.license},
        "hyperparameters": recipe.hyperparameters,
        "environment": describe_environment(),
    }
    del record["checkpoint"]
    (directory / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return result


def _measure(run: Run, data: DataSet) -> tuple[Measured, ...]:
    return measure(collect_outputs(run, data.test), data.test, data.metrics)


def _prepare(directory: Path, recipe: Recipe, seed: int, *, resume: bool) -> None:
    """Make the folder, and refuse to mix runs."""
    run = json.dumps({"recipe": recipe.name, "seed": seed, **recipe.hyperparameters}, sort_keys=True)
    marker = directory / "run.json"
    if directory.exists() and any(directory.iterdir()):
        if not resume:
            raise CheckpointError(f"{directory} has files already. Choose another folder, or go on with --resume.")
        if not marker.exists() or marker.read_text(encoding="utf-8") != run:
            raise CheckpointError(
                f"{directory} holds a run with another recipe, seed or configuration, which cannot be resumed as this "
                f"one. Its settings are in {marker}; its state is in {directory / STATE}."
            )
    directory.mkdir(parents=True, exist_ok=True)
    marker.write_text(run, encoding="utf-8")
