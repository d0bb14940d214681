"""Every task beyond text and images through export, gate and run, in onnxruntime and OpenVINO."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy import load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.errors import InputError
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.evaluate.parity.reference import Reference
from perceiver_deploy.evaluate.parity.verdicts import Candidate, judge
from perceiver_deploy.runtimes.checks.inputs import check_inputs
from tests.helpers.factories import perturbed_model
from tests.helpers.task_factories import TASK_CONFIGS, mostly_quick

# Sizes that no case of the gate has: other frame, sample, point, entity and query counts.
OTHER_SIZES = {
    "frames": 3,
    "samples": 28,
    "points": 7,
    "entities": 5,
    "queries": 2,
    "queries_image": 13,
    "queries_audio": 4,
    "length": 9,
}
IMAGE_SIZES = {"optical_flow": {"height": 7, "width": 5}}


@pytest.fixture(scope="module", params=mostly_quick(TASK_CONFIGS))
def exported(request, shared_bundle):
    """A model and its bundle, whose gate passed."""
    bundle = Bundle.open(shared_bundle(request.param))
    assert bundle.manifest.provenance["gate"] == "passed"
    return perturbed_model(TASK_CONFIGS[request.param]), bundle


def other_inputs(model, batch):
    sizes = {"height": 6, "width": 10, **OTHER_SIZES, **IMAGE_SIZES.get(model.config.task, {}), "batch": batch}
    case = Case("other", {name: sizes[name] for name in model.signature.axes})
    return make_inputs(model.signature, case, None, seed=4)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_numbers_are_eagers_at_sizes_and_masks_that_the_gate_did_not_see(exported, runtime):
    model, bundle = exported
    inputs = other_inputs(model, batch=4)
    if "attention_mask" in inputs:
        inputs["attention_mask"][0] = 0
        inputs["attention_mask"][1, 1:] = 0
    sample = Reference(model, model.signature).sample("other", inputs)
    with load(bundle, runtime=runtime) as session:
        verdicts = judge([Candidate(session, "fp32", "fp32")], sample)
    assert {verdict.output for verdict in verdicts} == {spec.name for spec in model.signature.stage.outputs}
    assert [verdict for verdict in verdicts if not verdict.passed] == []


def test_sizes_that_do_not_fit_are_refused_before_running(exported):
    model, bundle = exported
    inputs = other_inputs(model, batch=2)
    wrong = {
        "audio_classification": ({"audio": np.zeros((2, 30, 1), np.float32)}, "samples 30 .* a multiple of 4"),
        "video_classification": ({"image": np.zeros((2, 3, 3, 7, 10), np.float32)}, "height 7 .* a multiple of 2"),
        "optical_flow": ({"patches": np.zeros((2, 1, 27, 7, 5), np.float32)}, r"expected \[batch, 2, 27"),
        "point_cloud_classification": ({"points": np.zeros((2, 0, 3), np.float32)}, "points 0 .* at least 1"),
        "entities": ({"entities": np.zeros((2, 25, 6), np.float32)}, "entities 25 .* at most 24"),
        "tokens": ({"queries": np.zeros((2, 2, 9), np.float32)}, r"expected \[batch, queries, 12\]"),
        "multitask_text": ({"task_ids": np.array([0, 3])}, "value 3; expected at most 2"),
        "multimodal_autoencoding": ({"image_points": np.array([180])}, "value 180; expected at most 179"),
        "audiovisual_classification": ({"audio": np.zeros((3, 28, 1), np.float32)}, "must have the same batch"),
    }
    changed, message = wrong[model.config.task]
    with load(bundle) as session, pytest.raises(InputError, match=message):
        session.run({**inputs, **changed})


def test_a_mask_that_does_not_match_the_patches_is_refused():
    signature = perturbed_model(TASK_CONFIGS["audio_classification"]).signature
    inputs = {"audio": np.zeros((2, 28, 1), np.float32), "attention_mask": np.ones((2, 8), np.int64)}
    with pytest.raises(InputError, match=r"expected \[batch, samples/4\] = \[2, 7\]"):
        check_inputs(inputs, signature.stage.inputs, signature.axes)
