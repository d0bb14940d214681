"""The shipped flow model from checkpoint to bundle to real frames, through `run`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from perceiver_deploy import estimate_flow, load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.cli.main import main
from perceiver_deploy.data.media.flow import extract_patches, read_frames

FRAMES = [Path("tests/data/flow/cat_first.png"), Path("tests/data/flow/cat_second.png")]
TRUE_FLOW = (1, -1)


@pytest.fixture(scope="module")
def bundle(shared_bundle):
    return shared_bundle("flow")


def run(*arguments):
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_run_on_real_frames_finds_the_known_motion_and_writes_it(bundle, tmp_path, runtime):
    result = run(bundle, *FRAMES, "--save", tmp_path, "--runtime", runtime, "--json")
    assert result.exit_code == 0, result.stderr
    (prediction,) = json.loads(result.stdout)
    assert (prediction["flow"]["height"], prediction["flow"]["width"]) == (40, 56)
    written = {"cat_first.npy", "cat_first.flo", "cat_first.png"}
    assert {Path(file).name for file in prediction["files"]} == written
    flow = np.load(tmp_path / "cat_first.npy")
    error = np.linalg.norm(flow - np.array(TRUE_FLOW), axis=-1).mean()
    assert error < np.linalg.norm(TRUE_FLOW) / 3  # a third of zero flow's, as on the test pairs
    assert prediction["flow"]["mean"] == pytest.approx(np.linalg.norm(flow, axis=-1).mean(), rel=1e-5)


def test_arrays_of_one_tile_give_the_flow_of_the_images(bundle, tmp_path):
    frames = read_frames(FRAMES)[:, :32, :32]
    np.savez(tmp_path / "pair.npz", patches=extract_patches(frames)[None])
    result = run(bundle, tmp_path / "pair.npz", "--save", tmp_path)
    assert result.exit_code == 0, result.stderr
    opened = Bundle.open(bundle)
    with load(opened) as session:
        flow = estimate_flow(session.run, frames, opened.manifest.preprocessing)
    np.testing.assert_allclose(np.load(tmp_path / "pair.npy"), flow, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_frames_but_two_is_one_clear_message(bundle, count):
    result = run(bundle, *(FRAMES * 2)[:count])
    assert result.exit_code == 1
    assert f"takes two frames, the first and the second, not {count}" in " ".join(result.stderr.split())


def test_frames_of_two_sizes_are_one_clear_message(bundle, tmp_path):
    Image.open(FRAMES[1]).crop((0, 0, 50, 40)).save(tmp_path / "narrow.png")
    result = run(bundle, FRAMES[0], tmp_path / "narrow.png")
    assert result.exit_code == 1
    assert "Give two frames of one size" in " ".join(result.stderr.split())


def test_save_is_refused_where_all_is_text(shared_bundle, tmp_path):
    result = run(shared_bundle("fourier"), "examples/seven.png", "--save", tmp_path)
    assert result.exit_code == 2
    assert "--save is for optical_flow" in " ".join(result.stderr.split())
