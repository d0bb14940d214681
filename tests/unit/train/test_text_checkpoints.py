"""The recipes on text: their loss falls, and their shipped checkpoints reach what was recorded."""

from __future__ import annotations

import dataclasses
import functools
import json
import os

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from perceiver_deploy.bundle import sha256
from perceiver_deploy.data.datasets import Split, load_dataset
from perceiver_deploy.data.metrics import collect_outputs, measure
from perceiver_deploy.errors import MissingError
from perceiver_deploy.model.checkpoints.loading import SHIPPED, load_checkpoint
from perceiver_deploy.model.perceiver import build_model
from perceiver_deploy.runtimes.torch import EagerSession
from perceiver_deploy.train.loop import fit
from perceiver_deploy.train.recipes import find_recipe

NAMES = ("bytes", "sentiment", "text-tasks")


@functools.cache
def data_set(name):
    """A data set, or a skip where its files are not in the cache; continuous integration has them."""
    try:
        return load_dataset(name)
    except MissingError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


def record(name):
    return json.loads((SHIPPED / name / "training.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_loss_falls_on_a_few_examples_seen_again_and_again(name):
    """Sentiment is too hard to see a fall in as many steps on all of them."""
    recipe = dataclasses.replace(find_recipe(name), steps=40, warmup_steps=5, batch_size=8)
    whole = data_set(recipe.data).train
    few = Split({key: array[:8] for key, array in whole.inputs.items()}, whole.targets[:8], whole.shared)
    torch.manual_seed(0)
    model = build_model(recipe.config)
    recipe.initialize(model, few)
    losses = fit(model, recipe, few, seed=0).values
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


@pytest.mark.parametrize("name", NAMES)
def test_shipped_checkpoint_is_small_and_of_its_recipe(name):
    weights = SHIPPED / name / "model.safetensors"
    assert weights.stat().st_size < 2e6
    assert record(name)["sha256"] == sha256(weights)
    assert load_checkpoint(name).config == find_recipe(name).config
    assert record(name)["hyperparameters"] == find_recipe(name).hyperparameters


@pytest.mark.parametrize("name", NAMES)
def test_part_of_the_test_split_is_as_good_as_recorded(name):
    data, model = data_set(name), load_checkpoint(name)
    every = 10
    part = Split({key: array[::every] for key, array in data.test.inputs.items()}, data.test.targets[::every])
    part = dataclasses.replace(part, shared=data.test.shared)
    run = EagerSession(model, model.signature.stage, model.signature.axes).run
    for found, recorded in zip(
        measure(collect_outputs(run, part), part, data.metrics), record(name)["metrics"], strict=True
    ):
        low, high = found.interval
        # twice the interval of this part: about one in ten thousand would be outside
        assert abs(found.value - recorded["value"]) < high - low


@pytest.mark.parametrize(("name", "metric"), [("sentiment", 0), ("text-tasks", 0), ("text-tasks", 1)])
def test_accuracy_is_above_the_most_frequent_class_beyond_chance(name, metric):
    """Binomial test, one-sided, p < 0.01."""
    targets = data_set(name).test.targets.reshape(len(data_set(name).test), -1)[:, metric]
    correct = round(record(name)["metrics"][metric]["value"] * len(targets))
    majority = np.bincount(targets).max() / len(targets)
    assert binomtest(correct, len(targets), majority, alternative="greater").pvalue < 0.01
