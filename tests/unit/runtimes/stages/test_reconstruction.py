"""Full decoding in chunks: the numbers of one call, whatever the chunk."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.errors import InputError, UsageError
from perceiver_deploy.runtimes.eager import EagerSession
from perceiver_deploy.runtimes.stages.reconstruction import reconstruct_clip
from tests.helpers.factories import perturbed_model
from tests.helpers.task_factories import TASK_CONFIGS

FRAMES, HEIGHT, WIDTH, SAMPLES = 3, 4, 6, 40


def eager(task):
    model = perturbed_model(TASK_CONFIGS[task])
    return EagerSession(model, model.signature.stage, model.signature.axes)


@pytest.fixture(scope="module")
def session():
    return eager("multimodal_autoencoding")


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(0)
    return {
        "image": rng.random((2, FRAMES, 3, HEIGHT, WIDTH), np.float32),
        "audio": rng.uniform(-1, 1, (2, SAMPLES, 1)).astype(np.float32),
        "label": rng.random((2, 7), np.float32),
    }


@pytest.mark.parametrize("chunk", [1, 7, 10, 71, 72, 8192])  # 72 pixels, 10 patches of sound
def test_numbers_are_those_of_one_call_whatever_the_chunk(session, clip, chunk):
    points = {"image_points": np.arange(FRAMES * HEIGHT * WIDTH), "audio_points": np.arange(SAMPLES // 4)}
    once = session.run({**clip, **points})
    whole = reconstruct_clip(session, clip, chunk=chunk)
    pixels = once["image_reconstruction"].reshape(2, FRAMES, HEIGHT, WIDTH, 3)
    # float32 sums in another order: a few units in the last place of values about 1
    np.testing.assert_allclose(
        whole["image"], np.moveaxis(pixels, -1, 2), rtol=1e-5, atol=1e-5
    )  # float32 sums of the same terms in another order
    np.testing.assert_allclose(
        whole["audio"][..., 0], once["audio_reconstruction"], rtol=1e-5, atol=1e-5
    )  # float32 sums of the same terms in another order
    np.testing.assert_allclose(
        whole["label_logits"], once["label_logits"], rtol=1e-5, atol=1e-5
    )  # float32 sums of the same terms in another order
    assert whole["image"].shape == clip["image"].shape
    assert whole["audio"].shape == clip["audio"].shape


def test_a_run_holds_no_more_points_than_the_chunk(session, clip, monkeypatch):
    sizes = []
    run = session.run

    def counted(inputs):
        sizes.append((len(inputs["image_points"]), len(inputs["audio_points"])))
        return run(inputs)

    monkeypatch.setattr(session, "run", counted)
    reconstruct_clip(session, clip, chunk=30)
    assert sizes == [(30, 10), (30, 1), (12, 1)]


def test_no_label_is_zeros(session, clip):
    unlabelled = {name: clip[name] for name in ("image", "audio")}
    zeros = {**clip, "label": np.zeros((2, 7), np.float32)}
    given, absent = (reconstruct_clip(session, inputs) for inputs in (zeros, unlabelled))
    for name, array in given.items():
        np.testing.assert_array_equal(absent[name], array)


def test_what_cannot_be_reconstructed_is_refused(session, clip):
    with pytest.raises(UsageError, match="chunk is 0"):
        reconstruct_clip(session, clip, chunk=0)
    with pytest.raises(InputError, match="'audio' is missing"):
        reconstruct_clip(session, {"image": clip["image"]})
    with pytest.raises(InputError, match="image has shape"):
        reconstruct_clip(session, {**clip, "image": clip["image"][0]})
    with pytest.raises(InputError, match="a multiple of 4"):
        reconstruct_clip(session, {**clip, "audio": clip["audio"][:, :39]})
    with pytest.raises(InputError, match="only multimodal autoencoding"):
        reconstruct_clip(eager("video_classification"), {"image": clip["image"]})
