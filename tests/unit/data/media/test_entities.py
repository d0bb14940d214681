"""Rows of features as sets of entities, and the rows that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.bundle.preprocessing import EntitiesPreprocessing
from perceiver_deploy.data.media.entities import ENTITY_TOP1
from perceiver_deploy.data.media.files import read_example
from perceiver_deploy.errors import InputError

PREPROCESSING = EntitiesPreprocessing(names=("size", "weight", "age"), mean=(1.0, 10.0, 0.0), std=(2.0, 5.0, 1.0))
# Of size 5 and weight 5, of an age not known: (5 - 1) / 2 and (5 - 10) / 5.
ENTITIES = [[[2.0], [-1.0], [0.0]]]
MASK = [[1, 1, 0]]


@pytest.mark.parametrize(
    "content",
    [
        "5,5,\n",
        "5, 5, nan",
        "size,weight,age\n5,5,\n",
        "age,size,weight\n,5,5\n",
        "weight,size\n5,5\n",
        "\ufeffsize,weight\r\n5,5\r\n",
    ],
)
def test_a_row_is_standardised_and_what_is_missing_is_masked(tmp_path, content):
    path = tmp_path / "row.csv"
    path.write_text(content, encoding="utf-8")
    inputs = read_example(path, PREPROCESSING, {})
    assert inputs["entities"].tolist() == ENTITIES
    assert inputs["attention_mask"].tolist() == MASK
    assert inputs["entities"].dtype == np.float32


@pytest.mark.parametrize("features", [[5, 5, np.nan], [[5, 5, np.nan]]])
def test_raw_features_of_an_array_file_give_the_same(tmp_path, features):
    np.savez(tmp_path / "row.npz", features=np.array(features))
    inputs = read_example(tmp_path / "row.npz", PREPROCESSING, {})
    assert inputs["entities"].tolist() == ENTITIES
    assert inputs["attention_mask"].tolist() == MASK


def test_an_array_file_without_raw_features_holds_the_inputs_themselves(tmp_path):
    np.savez(tmp_path / "inputs.npz", entities=np.ones((4, 2, 1)))
    assert read_example(tmp_path / "inputs.npz", PREPROCESSING, {})["entities"].shape == (4, 2, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has 0 rows"),
        ("size,weight,age\n", "has 0 rows"),
        ("1,2,3\n4,5,6\n", "has 2 rows"),
        ("1,2\n", r"shape \[2\].*expected 3 numbers.*size, weight, age"),
        ("1,2,3,4\n", r"shape \[4\].*expected 3 numbers"),
        ("1,2,many\n", "'many' where a number is expected"),
        ("1,inf,3\n", "infinite"),
        ("size,height\n1,2\n", "does not know \\['height'\\]"),
        ("size,size\n1,2\n", "any twice"),
        ("size,weight\n1,2,3\n", "3 values under 2 column names"),
    ],
)
def test_other_rows_than_one_of_the_models_features_are_refused(tmp_path, content, message):
    path = tmp_path / "row.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_example(path, PREPROCESSING, {})


@pytest.mark.parametrize("features", [np.zeros((2, 3)), np.zeros(4), np.array(["1", "2", "3"])])
def test_other_arrays_than_one_row_of_the_models_features_are_refused(tmp_path, features):
    np.savez(tmp_path / "row.npz", features=features)
    with pytest.raises(InputError, match="expected 3 numbers"):
        read_example(tmp_path / "row.npz", PREPROCESSING, {})


def test_a_path_without_a_text_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_example(tmp_path / "none.csv", PREPROCESSING, {})
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_example(tmp_path / "binary.csv", PREPROCESSING, {})


def test_preprocessing_needs_one_mean_and_one_spread_a_feature():
    with pytest.raises(ValueError, match="3 names"):
        EntitiesPreprocessing(names=("a", "b", "c"), mean=(0.0, 0.0), std=(1.0, 1.0, 1.0))


def test_masked_entities_do_not_count_and_sets_without_any_neither():
    logits = np.array([[[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]] * 2)
    mask = np.array([[1, 1, 0], [0, 0, 0]])
    scores = ENTITY_TOP1.scores({"entity_logits": logits}, {"attention_mask": mask}, np.array([1, 1]))
    assert scores.tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
