"""`run` on real videos: classes, and clips that autoencoding reconstructs, with untrained models."""

from __future__ import annotations

import dataclasses
import json
import wave
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from perceiver_deploy import export_model, load, reconstruct_clip
from perceiver_deploy.bundle.preprocessing import VideoPreprocessing
from perceiver_deploy.cli.main import main
from perceiver_deploy.data.media.video import read_video
from tests.helpers.factories import perturbed_model
from tests.helpers.task_factories import CLASSES, TASK_CONFIGS

MEDIA = Path(__file__).parents[1] / "data/video"
PREPROCESSING = VideoPreprocessing(size=(8, 12), frames=4, frame_rate=25, sample_rate=400, gain=2.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """`bundle(task)`: of an untrained model that takes clips as the preprocessing says."""
    made = {}

    def get(task):
        if task not in made:
            silent = task == "video_classification"
            preprocessing = VideoPreprocessing(size=(8, 12), frames=4) if silent else PREPROCESSING
            config = dataclasses.replace(TASK_CONFIGS[task], preprocessing=preprocessing)
            made[task] = tmp_path_factory.mktemp(task) / "bundle"
            export_model(perturbed_model(config), made[task], validate=False)
        return made[task]

    return get


def run(*arguments):
    return CliRunner().invoke(main, ["run", *(str(argument) for argument in arguments)])


def test_a_clip_is_reconstructed_written_and_judged_against_the_file(bundle, tmp_path):
    path = bundle("multimodal_autoencoding")
    result = run(path, MEDIA / "bunny.mp4", "--save", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    (prediction,) = json.loads(result.stdout)
    clip = read_video(MEDIA / "bunny.mp4", PREPROCESSING)
    with load(path) as session:
        whole = reconstruct_clip(session, clip)
    for name in ("image", "audio"):
        error = np.square(whole[name].astype(np.float64) - clip[name]).mean()
        assert prediction["psnr"][name] == pytest.approx(-10 * np.log10(error), abs=1e-3)  # the same float32 graph
    assert len(prediction["classes"]) == 5
    assert prediction["files"] == [
        *(str(tmp_path / f"out/bunny/frame-{index:03d}.png") for index in range(4)),
        str(tmp_path / "out/bunny/sound.wav"),
    ]
    with Image.open(prediction["files"][0]) as image:
        assert image.size == (12, 8)
    with wave.open(prediction["files"][-1]) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (400, 64)
    again = run(path, MEDIA / "bunny.mp4", "--save", tmp_path / "out")
    assert again.exit_code == 2
    assert "has files already" in again.stderr


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("video_classification", "silent.mp4"),
        pytest.param("audiovisual_classification", "bunny.mp4", marks=pytest.mark.slow),
    ],
)
def test_classes_of_a_video_are_shown(bundle, task, file):
    result = run(bundle(task), MEDIA / file, "--json")
    assert result.exit_code == 0, result.output
    (prediction,) = json.loads(result.stdout)
    assert len(prediction["classes"]) == CLASSES
    assert sum(share for _, share in prediction["classes"]) == pytest.approx(1, abs=1e-5)


def test_what_does_not_fit_is_one_paragraph_and_no_trace(bundle, tmp_path):
    silent = run(bundle("audiovisual_classification"), MEDIA / "silent.mp4")
    assert silent.exit_code == 1
    assert silent.stderr.startswith(f"Error: {MEDIA / 'silent.mp4'} has no sound track")
    unsaved = run(bundle("video_classification"), MEDIA / "silent.mp4", "--save", tmp_path)
    assert unsaved.exit_code == 2
    assert "--save is for optical_flow, multimodal_autoencoding" in unsaved.stderr
