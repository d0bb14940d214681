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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import PerceiverDeployError, UsageError, requires
from perceiver_deploy.model.tasks.catalogue import PerceiverModel
from perceiver_deploy.progress import track
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.recipe import Recipe

with requires("train", "Training"):
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs

STATE = "state"


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
        UsageError: the processes cannot share a batch evenly.
    """
    accelerator = _accelerator(recipe)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate_factor)
    prepared, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    average = _moving_average(model, recipe.ema_decay)
    if average is not None:
        accelerator.register_for_checkpointing(average)
    first = _resume(accelerator, directory)
    last = recipe.steps if stop_at is None else min(stop_at, recipe.steps)
    losses = Losses(first, [])
    prepared.train()
    for step in track(range(first, last), f"Training {recipe.name}", last - first):
        whole = _batch(data, recipe, seed, step)
        batch = whole.part(accelerator.process_index, accelerator.num_processes, data.shared).to(accelerator.device)
        loss = recipe.loss(prepared(**batch.inputs), batch)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(prepared.parameters(), recipe.clip_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if average is not None:
            average.update_parameters(model)
        losses.values.append(float(accelerator.reduce(loss.detach(), "mean")))
        if not np.isfinite(losses.values[-1]):
            raise PerceiverDeployError(f"The loss is {losses.values[-1]} at step {step}. Lower the learning rate.")
        if directory is not None and ((step + 1) % save_every == 0 or step + 1 == last):
            _save(accelerator, directory, step + 1)
    if average is not None and last == recipe.steps:
        model.load_state_dict(average.module.state_dict())
    model.eval().cpu()
    return losses


def _accelerator(recipe: Recipe) -> Accelerator:
    """As `torchrun` or `accelerate launch` set it up; bf16 on GPUs. Several processes share each batch of the recipe.

    Raises:
        UsageError: they cannot share it evenly.
    """
    accelerator = Accelerator(
        mixed_precision="bf16" if torch.cuda.is_available() else "no",
        dataloader_config=DataLoaderConfiguration(split_batches=True),  # else the scheduler steps once a process
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # mask tokens may go unused
    )
    if recipe.batch_size % accelerator.num_processes:
        raise UsageError(
            f"{accelerator.num_processes} processes cannot share batches of {recipe.batch_size} evenly. Start a number "
            "of them that divides it."
        )
    return accelerator


def _batch(data: Split, recipe: Recipe, seed: int, step: int) -> Batch:
    """The batch of a step: epochs are seeded permutations, cut into full batches."""
    per_epoch = max(1, len(data) // recipe.batch_size)
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(len(data))
    rows = order[position * recipe.batch_size : (position + 1) * recipe.batch_size]
    inputs = {name: torch.from_numpy(array) for name, array in data.rows(rows).items()}
    batch = Batch(inputs, torch.from_numpy(data.targets[rows]))
    if recipe.transform is not None:
        batch = recipe.transform(batch, torch.Generator().manual_seed(seed * 1_000_003 + step))
    return batch


def _moving_average(model: PerceiverModel, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def _save(accelerator: Accelerator, directory: Path, step: int) -> None:
    """Write the state into a folder named after the step, and only then remove those of earlier steps."""
    partial = directory / STATE / "partial"
    try:
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
    except RuntimeError as error:  # torch's writer has no OSError for a full disk
        raise PerceiverDeployError(f"The training state {partial} could not be written: {error}.") from error
    if accelerator.is_main_process:
        earlier = _saved_steps(directory)
        partial.rename(directory / STATE / str(step))
        for old in earlier:
            shutil.rmtree(directory / STATE / str(old))
    accelerator.wait_for_everyone()


def _resume(accelerator: Accelerator, directory: Path | None) -> int:
    """Load the saved state, if there is one; returns the step to go on from."""
    saved = [] if directory is None else _saved_steps(directory)
    if directory is None or not saved:
        return 0
    accelerator.load_state(str(directory / STATE / str(max(saved))))
    return max(saved)


def _saved_steps(directory: Path) -> list[int]:
    return [int(path.name) for path in (directory / STATE).glob("*") if path.name.isdigit()]
