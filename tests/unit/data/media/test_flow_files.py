"""Written flow read back by other means, and the picture's colours."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from perceiver_deploy.data.media.flow_files import colour_wheel, write_flow
from perceiver_deploy.errors import InputError

FLOW = np.random.default_rng(0).standard_normal((3, 5, 2)).astype(np.float32)


def test_written_files_hold_the_flow(tmp_path):
    npy, flo, png = write_flow(FLOW, tmp_path / "new", "frame")
    np.testing.assert_array_equal(np.load(npy), FLOW)
    content = flo.read_bytes()
    assert np.frombuffer(content[:4], "<f4")[0] == 202021.25  # the tag of Middlebury's format
    assert np.frombuffer(content[4:12], "<i4").tolist() == [5, 3]
    np.testing.assert_array_equal(np.frombuffer(content[12:], "<f4").reshape(3, 5, 2), FLOW)
    np.testing.assert_array_equal(np.asarray(Image.open(png)), colour_wheel(FLOW))


def test_direction_is_hue_and_length_is_saturation():
    flow = np.array([[[2, 0], [0, 2], [-2, 0], [0, -2], [0, 0], [1, 0]]], np.float32)
    red, down, cyan, up, still, half = colour_wheel(flow)[0].astype(int).tolist()
    assert red == [255, 0, 0]
    assert still == [255, 255, 255]
    assert half == pytest.approx([255, 127, 127], abs=1)
    assert cyan == pytest.approx([0, 255, 255], abs=6)  # hues of 8 bits are 1.4 degrees apart
    assert down == pytest.approx([127, 255, 0], abs=6)
    assert up == pytest.approx([127, 0, 255], abs=6)


def test_a_flow_without_motion_is_white():
    assert (colour_wheel(np.zeros((2, 2, 2), np.float32)) == 255).all()


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"):
        write_flow(FLOW, tmp_path / "file", "frame")
