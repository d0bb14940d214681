"""The recipe `flow`: its first weights and its pairs."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch

from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.errors import MissingError
from perceiver_deploy.model.tasks.catalogue import build_model
from perceiver_deploy.pipeline import train as training
from perceiver_deploy.train.batch import Batch
from perceiver_deploy.train.recipes.flow import RECIPE


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


@pytest.mark.slow
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
