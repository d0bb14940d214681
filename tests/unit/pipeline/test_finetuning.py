"""Starting from a checkpoint: what keeps its weights, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from perceiver_deploy.errors import CheckpointError, InputError, UsageError
from perceiver_deploy.model.checkpoints.own import save_checkpoint
from perceiver_deploy.model.tasks.catalogue import build_model
from perceiver_deploy.pipeline import train as training
from perceiver_deploy.pipeline.finetuning import start_from
from perceiver_deploy.train.catalogue import find_recipe
from tests.helpers.factories import small_config, small_model
from tests.helpers.task_factories import TASK_CONFIGS

BODY = ("input_adapter.", "encoder.")


def same(model, source, *, where):
    weights = source.state_dict()
    return all(torch.equal(t, weights[n]) for n, t in model.state_dict().items() if where(n))


def test_another_task_keeps_input_adapter_and_encoder_and_gets_the_recipes_head():
    source, wanted = small_model("masked_lm"), small_config("text_classification", labels=tuple("abcde"))
    model = start_from(source, wanted, "there")
    assert model.config.task == "text_classification"
    assert model.config.labels == tuple("abcde")
    assert model.config.decoder == wanted.decoder
    assert model.config.semantics == source.config.semantics  # of the checkpoint, not of the recipe
    assert same(model, source, where=lambda name: name.startswith(BODY))
    assert model.decoder.cross_attention.query_norm.bias.eq(0).all()  # as freshly initialised


def test_the_same_task_and_labels_keep_everything():
    source = small_model("fourier")
    model = start_from(source, small_config("fourier"), "there", keep_head=True)
    assert same(model, source, where=lambda name: True)


def test_the_same_task_with_other_labels_gets_a_head_of_the_sources_shape_and_the_new_number_of_classes():
    wide = dataclasses.replace(small_config("fourier").decoder, query_channels=64)
    source = small_model("fourier", decoder=wide)
    two_classes = dataclasses.replace(small_config("fourier").decoder, output_channels=2)
    wanted = small_config("fourier", labels=("x", "y"), decoder=two_classes)
    model = start_from(source, wanted, "there")
    assert model.decoder.projection.weight.shape == (2, 64)
    assert same(model, source, where=lambda name: name.startswith(BODY))
    with pytest.raises(CheckpointError, match="does not have the labels x, y"):
        start_from(source, wanted, "there", keep_head=True)


def test_a_checkpoint_of_another_modality_is_refused():
    with pytest.raises(CheckpointError, match="there takes text input; the recipe trains on image"):
        start_from(small_model("masked_lm"), small_config("fourier"), "there")


@pytest.fixture
def short_digits(monkeypatch):
    recipe = dataclasses.replace(find_recipe("digits"), steps=3, warmup_steps=1)
    monkeypatch.setattr(training, "find_recipe", lambda name: recipe)
    return recipe


def test_training_from_the_shipped_checkpoint_starts_where_it_ended_and_records_it(short_digits, tmp_path):
    result = training.train_recipe("digits", tmp_path / "run", origin="digits", keep_head=True)
    assert result.metrics[0].value > 0.8  # three steps at the full rate, from 99 %; from nothing they give 10 to 30 %
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert record["from"]["name"] == "digits"
    with pytest.raises(CheckpointError, match="another recipe, seed, origin or configuration"):
        training.train_recipe("digits", tmp_path / "run", resume=True)


def test_data_larger_than_the_checkpoints_table_is_refused_before_anything_is_written(short_digits, tmp_path):
    image = small_config("learned").input
    narrow = dataclasses.replace(
        image, image_size=(8, 7), positions=dataclasses.replace(image.positions, index_dims=(8, 7))
    )
    tiny = small_model("learned", input=narrow)
    (tmp_path / "tiny").mkdir()
    save_checkpoint(tiny, tmp_path / "tiny")
    with pytest.raises(InputError, match="width 8"):
        training.train_recipe("digits", tmp_path / "run", origin=tmp_path / "tiny")
    assert not (tmp_path / "run").exists()


def test_keeping_a_head_needs_a_checkpoint(short_digits, tmp_path):
    with pytest.raises(UsageError, match="--from"):
        training.train_recipe("digits", tmp_path / "run", keep_head=True)


def test_a_head_of_several_tasks_is_kept_only_where_they_are_the_same():
    tasks = {"mood": ("bad", "good"), "length": ("short", "long"), "language": ("one",)}
    wanted = dataclasses.replace(TASK_CONFIGS["multitask_text"], task_labels=tasks)
    source = build_model(wanted)
    kept = start_from(source, wanted, "there", keep_head=True)
    assert same(kept, source, where=lambda name: True)
    others = dataclasses.replace(wanted, task_labels={**tasks, "language": ("another",)})
    assert start_from(source, others, "there").config.task_labels == others.task_labels
    with pytest.raises(CheckpointError, match="cannot be kept"):
        start_from(source, others, "there", keep_head=True)


def test_another_task_does_not_take_over_the_names_of_several():
    source = build_model(dataclasses.replace(TASK_CONFIGS["multitask_text"], task_labels=dict.fromkeys("abc", ("x",))))
    assert start_from(source, small_config("text_classification"), "there").config.task_labels is None
