"""The training loop on the digits recipe, a few steps of it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from perceiver_deploy.bundle.bundle import sha256
from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.errors import CheckpointError, PerceiverDeployError, UsageError
from perceiver_deploy.model.tasks.catalogue import build_model
from perceiver_deploy.pipeline import train as training
from perceiver_deploy.train.catalogue import find_recipe
from perceiver_deploy.train.loop import fit

STEPS = 60


@pytest.fixture(scope="module")
def recipe():
    """The digits recipe cut to a few steps, with dropout, so that its generator has to be resumed too."""
    digits = find_recipe("digits")
    return dataclasses.replace(
        digits, steps=STEPS, warmup_steps=10, config=dataclasses.replace(digits.config, dropout=0.1)
    )


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits")


def fresh(recipe):
    torch.manual_seed(0)
    return build_model(recipe.config)


def test_loss_falls_over_the_first_steps(recipe, data):
    losses = fit(fresh(recipe), recipe, data.train, seed=0).values
    assert losses[0] == pytest.approx(np.log(10), abs=0.5)  # ten classes, nothing known yet
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


@pytest.mark.slow
def test_a_resumed_run_gives_the_same_numbers_as_one_that_was_not_stopped(recipe, data, tmp_path):
    whole = fresh(recipe)
    expected = fit(whole, recipe, data.train, seed=3).values
    first = fit(fresh(recipe), recipe, data.train, seed=3, directory=tmp_path, stop_at=25).values
    torch.manual_seed(12345)  # whatever happened in between
    resumed = build_model(recipe.config)
    rest = fit(resumed, recipe, data.train, seed=3, directory=tmp_path)
    assert rest.first_step == 25
    assert first + rest.values == expected
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_a_disk_that_is_full_while_saving_leaves_the_last_state_to_go_on_from(recipe, data, tmp_path, monkeypatch):
    short = dataclasses.replace(recipe, steps=9)
    whole = fresh(recipe)
    fit(whole, short, data.train, seed=3)
    fit(fresh(recipe), short, data.train, seed=3, directory=tmp_path, stop_at=4)

    def fill_disk(self, folder):
        Path(folder).mkdir()
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Accelerator, "save_state", fill_disk)
        with pytest.raises(PerceiverDeployError, match="could not be written: No space left"):
            fit(fresh(recipe), short, data.train, seed=3, directory=tmp_path)
    resumed = fresh(recipe)
    assert fit(resumed, short, data.train, seed=3, directory=tmp_path).first_step == 4
    assert torch.equal(resumed.encoder.latents, whole.encoder.latents)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["9"]


def test_a_moving_average_is_kept_and_resumed_to_the_same_weights(recipe, data, tmp_path):
    averaged = dataclasses.replace(recipe, steps=12, ema_decay=0.5)
    whole, plain, resumed = fresh(recipe), fresh(recipe), fresh(recipe)
    fit(whole, averaged, data.train, seed=3)
    fit(plain, dataclasses.replace(averaged, ema_decay=None), data.train, seed=3)
    fit(fresh(recipe), averaged, data.train, seed=3, directory=tmp_path, stop_at=5)
    fit(resumed, averaged, data.train, seed=3, directory=tmp_path)
    assert not torch.equal(whole.encoder.latents, plain.encoder.latents)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_a_loss_that_is_not_finite_stops_the_run(recipe, data):
    broken = fresh(recipe)
    with torch.no_grad():
        broken.encoder.latents.fill_(float("nan"))
    with pytest.raises(PerceiverDeployError, match="loss is nan at step 0"):
        fit(broken, recipe, data.train, seed=0)


def test_learning_rate_warms_up_then_falls_to_zero(recipe):
    factors = [recipe.rate_factor(step) for step in range(STEPS + 1)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1
    assert factors[-1] == pytest.approx(0)
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[10:]))


@pytest.mark.slow
def test_two_processes_share_a_batch_and_give_the_losses_of_one(recipe, data, tmp_path):
    one = dataclasses.replace(recipe, steps=4, config=dataclasses.replace(recipe.config, dropout=0.0))
    expected = fit(fresh(one), one, data.train, seed=3).values
    script = Path(__file__).parents[2] / "data" / "train_steps.py"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "1",
        "GLOO_SOCKET_IFNAME": "lo",  # both processes are here; the machine's network has no part in it
    }
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(script),
        tmp_path,
    ]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    for process in range(2):
        found = json.loads((tmp_path / f"{process}.json").read_text())
        # float32 sums in another order; the learning rate makes little of it in four steps
        assert found == pytest.approx(expected, rel=1e-4)


def test_unknown_recipe_is_refused_with_a_list():
    with pytest.raises(UsageError, match=r"no recipe 'moon'; expected one of .*digits"):
        find_recipe("moon")


@pytest.mark.slow
def test_train_recipe_writes_a_checkpoint_with_its_metric_and_refuses_to_mix_runs(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "find_recipe", lambda name: recipe)
    output = tmp_path / "run"
    result = training.train_recipe("digits", output, seed=1)
    record = json.loads((output / "training.json").read_text())
    assert record["sha256"] == sha256(output / "model.safetensors") == result.sha256
    assert record["metrics"][0]["value"] == result.metrics[0].value > 0.2  # chance is 0.1
    assert "checkpoint" not in record
    with pytest.raises(CheckpointError, match="--resume"):
        training.train_recipe("digits", output, seed=1)
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        training.train_recipe("digits", output, seed=2, resume=True)
    again = training.train_recipe("digits", output, seed=1, resume=True)
    assert again.metrics == result.metrics
    assert json.dumps(again.to_json(), allow_nan=False)  # a run that was finished already has no loss of its own
    assert again.final_loss is None
