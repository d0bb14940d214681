"""Held-out data from files: what labels mean, and what is refused. And that calibration is spread over its data."""

import numpy as np
import pytest

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.preprocessing import FlowPreprocessing
from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.data.metrics import TOP1
from perceiver_deploy.data.split import Split, spread_rows
from perceiver_deploy.errors import InputError, UsageError
from perceiver_deploy.pipeline.samples.calibration import calibration_data
from perceiver_deploy.pipeline.samples.golden import golden_data
from perceiver_deploy.pipeline.samples.held_out import _metrics, held_out_data
from tests.helpers.factories import image_inputs, text_inputs


@pytest.fixture
def held_out(shared_bundle, tmp_path):
    """`held_out(kind, arrays)`: what a file of these arrays is to a bundle of that kind."""

    def read(kind, arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return held_out_data(Bundle.open(shared_bundle(kind)), tmp_path / "data.npz", None)

    return read


def test_labels_of_a_classifier_are_classes_and_no_input(held_out):
    labels = np.array([3, 1, 4])
    found = held_out("fourier", {**image_inputs(3, 7, 6), "labels": labels})
    assert found.metrics == (TOP1,)
    assert list(found.split.inputs) == ["pixel_values"]
    np.testing.assert_array_equal(found.split.targets, labels)


def test_without_labels_there_is_no_metric(held_out):
    found = held_out("text_classification", text_inputs(3, 11))
    assert found.metrics is None
    assert len(found.split) == 3


def test_other_labels_or_inputs_are_other_data(held_out):
    inputs = image_inputs(3, 7, 6)
    digests = {
        held_out("fourier", arrays).sha256
        for arrays in (
            inputs,
            {**inputs, "labels": np.array([0, 1, 2])},
            {**inputs, "labels": np.array([0, 1, 1])},
            image_inputs(3, 7, 6, seed=1),
        )
    }
    assert len(digests) == 4


@pytest.mark.parametrize(("raw", "scale"), [(False, 20.0), (True, 1.0)])
def test_labels_of_a_flow_are_pixels_that_its_output_is_scaled_to(shared_bundle, tmp_path, raw, scale):
    manifest = Bundle.open(shared_bundle("fourier")).manifest
    if raw:
        full = manifest.stages["full"]
        spec = full.inputs[0].model_copy(update={"dtype": "uint8"})
        stages = {"full": full.model_copy(update={"inputs": (spec,)})}
        manifest = manifest.model_copy(update={"stages": stages})
    manifest = manifest.model_copy(update={"task": "optical_flow", "preprocessing": FlowPreprocessing()})
    (metric,) = _metrics(manifest, tmp_path)
    flow = np.random.default_rng(0).standard_normal((2, 6, 7, 2))
    np.testing.assert_allclose(metric.scores({"flow": flow / scale}, {}, flow), 0, atol=1e-12)


def not_finite(value):
    inputs = image_inputs(4, 7, 6)
    inputs["pixel_values"][2, 0, 1, 3] = value
    return inputs | {"labels": np.zeros(4, int)}


@pytest.mark.parametrize(
    ("kind", "arrays", "message"),
    [
        ("fourier", {**image_inputs(3, 7, 6), "labels": np.zeros(2, int)}, "2 labels for 3 examples"),
        ("masked_lm", {**text_inputs(3, 11), "labels": np.zeros((3, 11), int)}, "Leave the array 'labels' out"),
        ("fourier", {"images": np.zeros(3)}, "no input 'images'"),
        ("fourier", not_finite(np.nan), "Held-out input 'pixel_values' of .*data.npz .* not finite, first in row 2"),
        ("fourier", not_finite(-np.inf), "Held-out input 'pixel_values' of .*data.npz .* not finite, first in row 2"),
        (
            "fourier",
            {**image_inputs(1, 7, 6), "labels": np.zeros(1, int)},
            "data.npz gives 1 held-out sample; expected at least 2, better 32 or more",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(held_out, kind, arrays, message):
    with pytest.raises(InputError, match=message):
        held_out(kind, arrays)


def test_without_a_data_set_there_is_nothing_held_out(shared_bundle):
    with pytest.raises(UsageError, match="whose test split"):
        held_out_data(Bundle.open(shared_bundle("fourier")), None, "samples.npz")


@pytest.mark.parametrize("samples", [8, 256])
@pytest.mark.parametrize("labels", [{}, {"labels": np.zeros(40, int)}])
@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_what_was_calibrated_on_is_refused_under_another_name_in_any_order_with_labels_or_not(
    shared_bundle, tmp_path, samples, labels, order
):
    bundle, pixels = Bundle.open(shared_bundle("fourier")), image_inputs(40, 7, 6)["pixel_values"]
    np.savez(tmp_path / "calibration.npz", pixel_values=pixels)
    np.savez(tmp_path / "other.npz", pixel_values=pixels[order], **labels)
    calibrated = calibration_data(bundle, tmp_path / "calibration.npz", samples, {})
    known = min(samples, 40)
    with pytest.raises(UsageError, match=rf"^{known} of the 40 examples of .*other.npz were calibrated on.*--held-out"):
        held_out_data(bundle, tmp_path / "other.npz", tmp_path / "calibration.npz").require_unlike(calibrated)


def test_a_tenth_of_the_examples_may_have_been_calibrated_on(shared_bundle, tmp_path):
    bundle, pixels = Bundle.open(shared_bundle("fourier")), image_inputs(40, 7, 6)["pixel_values"]
    np.savez(tmp_path / "calibration.npz", pixel_values=pixels)
    calibrated = calibration_data(bundle, tmp_path / "calibration.npz", 40, {})

    def with_known(rows):
        np.savez(tmp_path / "other.npz", pixel_values=np.concatenate([pixels[:rows], pixels[rows:] + 1]))
        return held_out_data(bundle, tmp_path / "other.npz", None)

    with_known(4).require_unlike(calibrated)
    with_known(40).require_unlike(golden_data(bundle, {}))
    with pytest.raises(UsageError, match=r"^5 of the 40 examples"):
        with_known(5).require_unlike(calibrated)


def test_the_training_rows_of_a_data_set_that_was_calibrated_on_are_refused_as_a_file(shared_bundle, tmp_path):
    bundle = Bundle.open(shared_bundle("digits"))
    data = load_dataset("digits")
    calibrated = calibration_data(bundle, "digits", 256, {})
    np.savez(tmp_path / "train.npz", **data.train.inputs, labels=data.train.targets)
    with pytest.raises(UsageError, match="were calibrated on"):
        held_out_data(bundle, tmp_path / "train.npz", "digits").require_unlike(calibrated)
    held_out_data(bundle, None, "digits").require_unlike(calibrated)


@pytest.mark.parametrize(
    "read",
    [
        lambda bundle, name: calibration_data(bundle, name, 8, {}),
        lambda bundle, name: held_out_data(bundle, name, None),
    ],
    ids=["calibration", "held-out"],
)
def test_a_data_set_of_another_task_is_refused_before_its_files_are_looked_for(
    shared_bundle, tmp_path, monkeypatch, read
):
    monkeypatch.setenv("PERCEIVER_DEPLOY_CACHE", str(tmp_path))  # nothing is fetched
    with pytest.raises(InputError, match="'languages' is for audio_classification; the bundle's task is image_class"):
        read(Bundle.open(shared_bundle("fourier")), "languages")


def test_rows_are_spread_evenly_with_the_first_among_them():
    assert spread_rows(10, 4).tolist() == [0, 2, 5, 7]
    assert spread_rows(3, 256).tolist() == [0, 1, 2]
    assert spread_rows(0, 4).tolist() == []
    split = Split({"x": np.arange(10)}, np.arange(10) * 2, {"shared": np.ones(3)}).spread(2)
    assert (split.inputs["x"].tolist(), split.targets.tolist(), split.shared["shared"].shape) == ([0, 5], [0, 10], (3,))


def test_calibration_takes_samples_of_the_whole_file_and_names_bad_rows_as_the_file_has_them(shared_bundle, tmp_path):
    inputs = image_inputs(40, 7, 6)
    inputs["pixel_values"][:] = np.arange(40)[:, None, None, None]  # ordered, as a set that is sorted by class
    bundle, path = Bundle.open(shared_bundle("fourier")), tmp_path / "data.npz"
    np.savez(path, **inputs)
    found = calibration_data(bundle, path, 8, {})
    assert found.samples.inputs["pixel_values"][:, 0, 0, 0].tolist() == [0, 5, 10, 15, 20, 25, 30, 35]
    inputs["pixel_values"][15] = np.nan
    np.savez(path, **inputs)
    with pytest.raises(InputError, match="first in row 15"):
        calibration_data(bundle, path, 8, {})


def test_a_data_set_that_the_model_cannot_take_is_refused_before_anything_runs(shared_bundle):
    bundle = Bundle.open(shared_bundle("masked_lm"))
    with pytest.raises(InputError, match="Input 'input_ids' has"):
        calibration_data(bundle, "bytes", 4, {})
    with pytest.raises(InputError, match="Input 'input_ids' has"):
        held_out_data(bundle, "bytes", None)
