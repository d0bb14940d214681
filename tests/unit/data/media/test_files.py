"""Files of arrays: what is refused, and that the text is ours, not numpy's."""

import numpy as np
import pytest

from perceiver_deploy.data.media.files import read_arrays
from perceiver_deploy.errors import InputError


def test_arrays_of_a_file_are_read_by_name(tmp_path):
    np.savez(tmp_path / "data.npz", pixels=np.ones((2, 3)), labels=np.array([1, 2]))
    found = read_arrays(tmp_path / "data.npz")
    assert {name: array.tolist() for name, array in found.items()} == {"pixels": [[1] * 3] * 2, "labels": [1, 2]}


def save_one(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def save_whole(path):
    np.savez(path, pixels=np.arange(1000))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"data.npz does not exist\. Give a \.npz file that does"),
        (lambda path: path.mkdir(), r"data.npz cannot be read as a \.npz file \(.*directory"),
        (lambda path: path.write_bytes(b""), "is not a zip archive of arrays, or a damaged one"),
        (lambda path: path.write_text("1,2,3"), "is not a zip archive of arrays, or a damaged one"),
        (save_one, "is not a zip archive of arrays, or a damaged one"),
        (lambda path: path.write_bytes(save_whole(path)[:-30]), "is not a zip archive of arrays, or a damaged one"),
        (lambda path: path.write_bytes(save_whole(path).replace(b"NUMPY", b"PUMPY")), "damaged|Bad CRC"),
        (lambda path: np.savez(path, pixels=np.array([{}, None])), "of Python objects"),
    ],
    ids=["absent", "folder", "empty", "text", "npy", "cut", "changed", "objects"],
)
def test_what_is_no_file_of_arrays_is_refused_without_advice_to_load_pickles(tmp_path, write, message):
    write(tmp_path / "data.npz")
    with pytest.raises(InputError, match=message) as error:
        read_arrays(tmp_path / "data.npz")
    assert "pickle" not in str(error.value)
