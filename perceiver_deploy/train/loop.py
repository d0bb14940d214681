"""The training loop: one for all recipes, resumable to the same numbers.

Everything random at a step follows from the seed and the step, so a run stopped and resumed gives what it would
have given; the generator that dropout uses is part of the saved state.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from perceiver_deploy.data.datasets import Split
from perceiver_deploy.errors import PerceiverDeployError, requires
from perceiver_deploy.model.perceiver import PerceiverModel
from perceiver_deploy.progress import track
from perceiver_deploy.train.recipe import Recipe

with requires("train", "Training"):
    from accelerate import Accelerator

STATE = "state"
_EVALUATION_BATCH = 256


@dataclass
class Losses:
    """Training loss of every step of this run, and the step it began at."""

    first_step: int
    values: list[float]


def fit(
    model: PerceiverModel,
    recipe: Recipe,
    data: Split,
    *,
    seed: int,
    directory: Path | None = None,
    stop_at: int | None = None,
    save_every: int = 500,
) -> Losses:
    """Train in place.

    Args:
        model: freshly initialised; its weights are replaced when a saved state is found.
        recipe: what to do.
        data: training split.
        seed: of data order, augmentation and dropout.
        directory: where the state is saved every `save_every` steps and at `stop_at`, and resumed from.
        stop_at: leave after this step instead of the recipe's last.
        save_every: steps between saved states.

    Raises:
        PerceiverDeployError: the loss is no longer finite.
    """
    accelerator = Accelerator()
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate_factor)
    prepared, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    first = _resume(accelerator, directory)
    last = recipe.steps if stop_at is None else min(stop_at, recipe.steps)
    losses = Losses(first, [])
    prepared.train()
    for step in track(range(first, last), f"Training {recipe.name}", last - first):
        inputs, targets = _batch(data, recipe, seed, step)
        logits = prepared(**{name: tensor.to(accelerator.device) for name, tensor in inputs.items()})["logits"]
        loss = functional.cross_entropy(logits, targets.to(accelerator.device), label_smoothing=recipe.label_smoothing)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(prepared.parameters(), recipe.clip_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.values.append(loss.item())
        if not np.isfinite(losses.values[-1]):
            raise PerceiverDeployError(f"The loss is {losses.values[-1]} at step {step}. Lower the learning rate.")
        if directory is not None and ((step + 1) % save_every == 0 or step + 1 == last):
            _save(accelerator, directory, step + 1)
    model.eval()
    return losses


def predict(model: PerceiverModel, data: Split) -> NDArray[np.float32]:
    """Logits [examples, ...] of a split, in eval mode."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(data), _EVALUATION_BATCH):
            rows = data.rows(slice(start, start + _EVALUATION_BATCH))
            parts.append(model(**{name: torch.from_numpy(array) for name, array in rows.items()})["logits"].numpy())
    return np.concatenate(parts)


def _batch(data: Split, recipe: Recipe, seed: int, step: int) -> tuple[dict[str, Tensor], Tensor]:
    """The batch of a step: epochs are seeded permutations, cut into full batches."""
    per_epoch = max(1, len(data) // recipe.batch_size)
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(len(data))
    rows = order[position * recipe.batch_size : (position + 1) * recipe.batch_size]
    inputs = {name: torch.from_numpy(array) for name, array in data.rows(rows).items()}
    if recipe.augment is not None:
        inputs = recipe.augment(inputs, torch.Generator().manual_seed(seed * 1_000_003 + step))
    return inputs, torch.from_numpy(data.targets[rows])


def _save(accelerator: Accelerator, directory: Path, step: int) -> None:
    """Write the state beside the old one, then put it in its place."""
    fresh = directory / f"{STATE}.partial"
    try:
        accelerator.save_state(str(fresh))
    except RuntimeError as error:  # torch's writer has no OSError for a full disk
        raise PerceiverDeployError(f"The training state {fresh} could not be written: {error}.") from error
    (fresh / "step").write_text(str(step), encoding="utf-8")
    shutil.rmtree(directory / STATE, ignore_errors=True)
    fresh.rename(directory / STATE)


def _resume(accelerator: Accelerator, directory: Path | None) -> int:
    """Load a saved state, if there is one; returns the step to go on from."""
    if directory is None or not (directory / STATE / "step").exists():
        return 0
    accelerator.load_state(str(directory / STATE))
    return int((directory / STATE / "step").read_text(encoding="utf-8"))
