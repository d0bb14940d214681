"""The shipped models of point clouds and entities, from export to the class of a real file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perceiver_deploy import load
from perceiver_deploy.errors import InputError
from perceiver_deploy.pipeline.predict import predict_files

TABLE = Path(__file__).parents[1] / "data" / "furniture" / "table.obj"
TUMOUR = Path(__file__).parents[1] / "data" / "breast-cancer" / "malignant.csv"
RUNTIMES = ("onnxruntime", "openvino")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("name", "file"), [pytest.param("furniture", TABLE, marks=pytest.mark.slow), ("breast-cancer", TUMOUR)]
)
def test_files_held_out_from_training_get_their_class(shared_bundle, name, file, runtime):
    (prediction,) = predict_files(shared_bundle(name), [file], runtime=runtime)
    label, share = prediction.classes[0]
    assert label == file.stem
    assert share > 0.5


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_value_that_is_missing_changes_the_answer_but_not_whatever_stands_in_its_place(shared_bundle, runtime):
    entities = np.linspace(-2, 2, 30, dtype=np.float32).reshape(1, 30, 1)
    mask = np.ones((1, 30), np.int64)
    with load(shared_bundle("breast-cancer"), runtime=runtime) as session:
        whole = session.run({"entities": entities, "attention_mask": mask})
        mask[0, :5] = 0
        missing = session.run({"entities": entities, "attention_mask": mask})
        entities[0, :5] = 7
        other = session.run({"entities": entities, "attention_mask": mask})
    assert np.abs(whole["logits"] - missing["logits"]).max() > 1e-3
    assert other["logits"] == pytest.approx(missing["logits"], abs=1e-5)  # float32
    assert not missing["entity_logits"][0, :5].any()


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        pytest.param("furniture", "empty.obj", "", "empty.obj has no face", marks=pytest.mark.slow),
        ("breast-cancer", "many.csv", ",".join("1" * 31), r"shape \[31\].*expected 30 numbers.*mean radius"),
        ("breast-cancer", "few.csv", "1,2,3", r"shape \[3\].*expected 30 numbers"),
    ],
)
def test_files_of_the_wrong_kind_are_refused(shared_bundle, tmp_path, name, file, content, message):
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=message):
        predict_files(shared_bundle(name), [tmp_path / file])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        pytest.param("furniture", {"points": (1, 0, 3)}, "points 0 .* at least 1", marks=pytest.mark.slow),
        ("breast-cancer", {"entities": (1, 31, 1)}, "entities 31 .* at most 30"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_running(shared_bundle, name, shape, message):
    ((tensor, size),) = shape.items()
    inputs = {tensor: np.zeros(size, np.float32), "attention_mask": np.ones(size[:2], np.int64)}
    with load(shared_bundle(name)) as session, pytest.raises(InputError, match=message):
        session.run(inputs)
