"""Several tasks on one text: task ids have no batch, and every task gets its answer."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from perceiver_deploy import convert_bundle, export_model, load
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.bundle.preprocessing import TextPreprocessing
from perceiver_deploy.model.tasks.catalogue import build_model
from perceiver_deploy.pipeline.predict import predict_files
from tests.helpers.task_factories import TASK_CONFIGS

TASK_LABELS = {"mood": ("bad", "good"), "length": ("short", "middling", "long"), "language": ("one",)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "bundle"
    config = dataclasses.replace(
        TASK_CONFIGS["multitask_text"],
        task_labels=TASK_LABELS,
        preprocessing=TextPreprocessing(),
        initializer_range=1.0,
    )
    torch.manual_seed(0)
    export_model(build_model(config).eval(), path, validate=False)
    return path


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("A short text.")
    return path


def test_a_text_file_gets_an_answer_of_every_task_among_its_own_classes(bundle, text):
    (prediction,) = predict_files(bundle, [text])
    assert {task: {label for label, _ in classes} for task, classes in prediction.answers.items()} == {
        task: set(labels) for task, labels in TASK_LABELS.items()
    }
    for classes in prediction.answers.values():
        assert sum(share for _, share in classes) == pytest.approx(1)
    assert prediction.classes == ()


def test_task_ids_of_an_npz_file_say_which_tasks_are_answered(bundle, text, tmp_path):
    (everything,) = predict_files(bundle, [text])
    ids = np.frombuffer(text.read_bytes(), np.uint8).astype(np.int64)[None] + 6
    ids = np.pad(ids, ((0, 0), (1, 1)), constant_values=((0, 0), (4, 5)))
    np.savez(tmp_path / "two.npz", input_ids=ids, attention_mask=np.ones_like(ids), task_ids=np.array([2, 0]))
    (two,) = predict_files(bundle, [tmp_path / "two.npz"])
    assert list(two.answers) == ["language", "mood"]
    assert dict(two.answers["mood"]) == pytest.approx(dict(everything.answers["mood"]), abs=1e-6)


def test_tasks_without_names_are_numbered(bundle, tmp_path, text):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    with changed_bundle(copy) as (staging, opened):
        staging.finish(opened.manifest.model_copy(update={"task_labels": None}))
    (prediction,) = predict_files(copy, [text])
    assert list(prediction.answers) == ["0", "1", "2"]


def test_calibration_gives_task_ids_whole_to_every_batch(bundle, tmp_path):
    rng = np.random.default_rng(0)
    samples = 40  # more than a batch of calibration, and more than there are tasks
    ids = rng.integers(6, 262, (samples, 20))
    np.savez(tmp_path / "data.npz", input_ids=ids, attention_mask=np.ones_like(ids), task_ids=np.arange(3))
    result = convert_bundle(bundle, precision="int8", calibration=tmp_path / "data.npz", samples=36)
    assert result.samples == 36
    assert result.reports["full"].quantized == result.reports["full"].weight_gemms > 0
    inputs = {"input_ids": ids[:2], "attention_mask": np.ones_like(ids[:2]), "task_ids": np.arange(3)}
    with load(bundle) as full, load(bundle, variant="int8") as int8:
        reference, found = full.run(inputs)["logits"], int8.run(inputs)["logits"]
    # INT8 on random weights and noise: wrong wiring gives an error of 1
    assert 0 < np.linalg.norm(found - reference) / np.linalg.norm(reference) < 0.5
    assert Bundle.open(bundle).manifest.task_labels == TASK_LABELS
