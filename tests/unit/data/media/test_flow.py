"""Patches against torch's unfold, tiles against formulas, the end-point error against the same by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from perceiver_deploy.bundle.preprocessing import FlowPreprocessing
from perceiver_deploy.data.media.flow import (
    cut_tiles,
    end_point_error,
    estimate_flow,
    extract_patches,
    read_frames,
    tile_weights,
)
from perceiver_deploy.errors import InputError

PUBLISHED = FlowPreprocessing()
SMALL = FlowPreprocessing(tile_size=(8, 10), min_overlap=3, output_scale=4.0)
SIZES = [(8, 10), (9, 11), (5, 7), (5, 23), (17, 10), (20, 31), (13, 12)]


def random_frames(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(6, 9), (1, 1), (3, 2)])
def test_patches_are_those_of_torch_unfold_in_the_published_channel_order(size):
    frames = random_frames(*size)
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    windows = functional.pad(images, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # [2, c, h, w, kh, kw]
    expected = windows.permute(0, 4, 5, 1, 2, 3).reshape(2, 27, *size)
    np.testing.assert_array_equal(extract_patches(frames), expected.numpy())


@pytest.mark.parametrize("size", SIZES)
def test_tiles_cover_a_frame_are_inside_it_and_overlap_enough(size):
    tiles = cut_tiles(size, SMALL)
    count = np.zeros(size, int)
    for rows, columns in tiles:
        assert (rows.stop - rows.start, columns.stop - columns.start) == (min(8, size[0]), min(10, size[1]))
        count[rows, columns] += 1
    assert count.min() >= 1
    assert len(tiles) * min(8, size[0]) * min(10, size[1]) == count.sum()  # none reaches beyond the frame
    for axis in (0, 1):
        spans = sorted({(tile[axis].start, tile[axis].stop) for tile in tiles})
        assert all(spans[i][1] - spans[i + 1][0] >= 3 for i in range(len(spans) - 1))


def test_sintel_takes_six_tiles_of_the_published_model():
    assert len(cut_tiles((436, 1024), PUBLISHED)) == 6


def test_weights_fall_with_the_distance_to_the_nearest_edge():
    expected = [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 2, 3, 2, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(tile_weights(5, 5), expected)


@pytest.mark.parametrize("size", SIZES)
def test_a_constant_flow_stays_constant(size):
    def run(inputs):
        batch, _, _, height, width = inputs["patches"].shape
        return {"flow": np.tile(np.array([0.5, -0.25], np.float32), (batch, height, width, 1))}

    flow = estimate_flow(run, random_frames(*size), SMALL)
    assert flow.shape == (*size, 2)
    np.testing.assert_allclose(flow, np.broadcast_to([2.0, -1.0], flow.shape), rtol=1e-6)


@pytest.mark.parametrize("size", [(8, 10), (5, 7)])
def test_a_frame_of_one_tile_or_less_equals_the_direct_run(size):
    sizes = []

    def run(inputs):
        sizes.append(inputs["patches"].shape[-2:])
        return {"flow": np.moveaxis(inputs["patches"][:, 0, :2], 1, -1)}

    frames = random_frames(*size)
    np.testing.assert_array_equal(
        estimate_flow(run, frames, SMALL), np.moveaxis(extract_patches(frames)[0, :2], 0, -1) * np.float32(4)
    )
    assert sizes == [size]


def test_overlapping_tiles_are_blended_by_their_weights():
    """Each tile answers with its number: checked pixel by pixel against the weighted mean."""
    calls = iter(range(100))

    def run(inputs):
        return {"flow": np.full((1, *inputs["patches"].shape[-2:], 2), next(calls), np.float32)}

    flow = estimate_flow(run, random_frames(13, 17), SMALL)
    tiles = cut_tiles((13, 17), SMALL)
    for y, x in np.ndindex(13, 17):
        total = weight = 0.0
        for number, (rows, columns) in enumerate(tiles):
            if rows.start <= y < rows.stop and columns.start <= x < columns.stop:
                own = min(y - rows.start, x - columns.start, rows.stop - 1 - y, columns.stop - 1 - x) + 1
                total, weight = total + own * number, weight + own
        assert flow[y, x, 0] == pytest.approx(4 * total / weight, rel=1e-6)


def test_frames_of_another_kind_are_refused():
    with pytest.raises(InputError, match=r"float32 \[2, 8, 10, 3\]; expected uint8"):
        estimate_flow(lambda inputs: inputs, random_frames(8, 10).astype(np.float32), SMALL)


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_files_but_two_is_refused(tmp_path, count):
    paths = [tmp_path / f"{index}.png" for index in range(count)]
    with pytest.raises(InputError, match=f"takes two frames, the first and the second, not {count}"):
        read_frames(paths)


def test_frames_of_two_sizes_are_refused(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"a\.png has 6 x 4 pixels and .*b\.png has 5 x 4"):
        read_frames([tmp_path / "a.png", tmp_path / "b.png"])


def test_end_point_error_is_the_mean_distance_in_pixels():
    output = np.zeros((2, 2, 2, 2), np.float32)
    output[1, 0, 0] = (0.75, 1.0)  # times 4: (3, 4), 5 pixels away
    scores = end_point_error(SMALL).scores({"flow": output}, {}, np.zeros_like(output))
    np.testing.assert_allclose(scores, [0, 5 / 4])


def test_an_overlap_of_a_whole_tile_is_refused():
    with pytest.raises(ValueError, match="min_overlap 8 is not smaller than the tile"):
        FlowPreprocessing(tile_size=(8, 10), min_overlap=8)
