"""The recipe `flow`: its first weights, its pairs, its first steps, and the checkpoint it gave."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
import torch

from perceiver_deploy.bundle import sha256
from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.data.metrics import collect_outputs, measure
from perceiver_deploy.errors import MissingError
from perceiver_deploy.model.checkpoints.loading import SHIPPED, load_checkpoint
from perceiver_deploy.model.perceiver import build_model
from perceiver_deploy.pipeline import training
from perceiver_deploy.runtimes.torch import EagerSession
from perceiver_deploy.train.flow import RECIPE
from perceiver_deploy.train.loop import fit
from perceiver_deploy.train.recipe import Batch

STEPS = 24


@pytest.fixture(scope="module")
def data():
    """The data set, or a skip where its file is not in the cache; continuous integration has it."""
    try:
        return load_dataset("flow")
    except MissingError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


def test_first_weights_give_patches_of_equal_and_independent_components(data):
    patches = torch.from_numpy(data.train.inputs["patches"][:64]).permute(0, 3, 4, 1, 2).flatten(3).flatten(0, 2)

    def largest_correlation(model):
        with torch.no_grad():
            features = model.input_adapter.projection(patches)
        return (torch.corrcoef(features.T).abs() - torch.eye(features.shape[1])).max(), features.std(0)

    model = build_model(RECIPE.config)
    assert largest_correlation(model)[0] > 0.9
    RECIPE.initialize(model, data.train)
    correlation, deviations = largest_correlation(model)
    # of 64 pairs, where all 256 gave the weights
    assert correlation < 0.4
    assert 0.4 < deviations.min() < deviations.max() < 1.5


def test_each_step_draws_new_pairs_that_follow_from_the_generator(data):
    batch = Batch({"patches": torch.from_numpy(data.train.inputs["patches"][:3])}, torch.zeros(3, 32, 32, 2))

    def draw(seed):
        return RECIPE.transform(batch, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1).inputs["patches"], draw(1).inputs["patches"])
    assert torch.equal(draw(1).targets, draw(1).targets)
    assert not torch.equal(draw(1).targets, draw(2).targets)
    assert draw(1).inputs["patches"].shape == batch.inputs["patches"].shape


def test_loss_falls_over_the_first_steps(data):
    recipe = dataclasses.replace(RECIPE, steps=STEPS, batch_size=16, warmup_steps=5)
    torch.manual_seed(0)
    model = build_model(recipe.config)
    recipe.initialize(model, data.train)
    losses = fit(model, recipe, data.train, seed=0).values
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])


def test_first_weights_are_set_in_a_new_run_and_not_in_one_that_starts_from_a_checkpoint(data, tmp_path, monkeypatch):
    calls = []
    recipe = dataclasses.replace(
        RECIPE, steps=1, batch_size=2, initialize=lambda model, split: calls.append(len(split))
    )
    monkeypatch.setattr(training, "find_recipe", lambda name: recipe)
    training.train_recipe("flow", tmp_path / "new")
    assert calls == [len(data.train)]
    training.train_recipe("flow", tmp_path / "tuned", origin="flow")
    assert calls == [len(data.train)]


def test_shipped_checkpoint_is_small_and_reaches_its_recorded_error(data):
    folder = SHIPPED / "flow"
    record = json.loads((folder / "training.json").read_text())
    recorded, zero = record["metrics"][0]["value"], record["baseline_metrics"][0]["value"]
    assert (folder / "model.safetensors").stat().st_size < 2e6
    assert record["sha256"] == sha256(folder / "model.safetensors")
    assert record["baseline"] == "zero flow"
    assert recorded <= zero / 3
    model = load_checkpoint("flow")
    run = EagerSession(model, model.signature.stage, model.signature.axes).run
    (error,) = measure(collect_outputs(run, data.test), data.test, data.metrics)
    assert error.value == pytest.approx(recorded, abs=1e-4)  # pixels: float32 on another machine
