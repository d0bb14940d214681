"""Optical flow and multimodal autoencoding against transformers' own forward, on small random models.

The published sizes are in benchmarks/full_size_parity.py.
"""

from __future__ import annotations

import pytest
import torch
import transformers

from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.checkpoints.load import load_checkpoint
from tests.helpers.factories import perturb, relative_l2

MODELS = transformers.models.perceiver.modeling_perceiver
SMALL = {
    "num_latents": 8,
    "d_latents": 32,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
}
FLOW = {**SMALL, "train_size": [12, 16]}
MULTIMODAL = {
    **SMALL,
    "num_frames": 4,
    "audio_samples_per_frame": 32,
    "samples_per_patch": 16,
    "image_size": 4,
    "output_shape": [1, 4, 16, 16],
    "num_labels": 7,
    "output_num_channels": 24,
}
# Issue 3 of the project: exact up to the order of float64 sums, and float32 arithmetic.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


def pair(name, values, folder):
    """Transformers' model and ours, from the checkpoint it saved."""
    theirs = getattr(MODELS, name)(transformers.PerceiverConfig(**values)).eval()
    perturb(theirs)
    theirs.save_pretrained(folder)
    return theirs, load_checkpoint(folder)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("batch", [1, 3])
def test_optical_flow_equals_transformers(tmp_path, dtype, batch):
    theirs, ours = pair("PerceiverForOpticalFlow", FLOW, tmp_path)
    patches = torch.randn(batch, 2, 27, 12, 16).to(dtype)
    with torch.no_grad():
        expected = theirs.to(dtype)(inputs=patches).logits
        found = ours.to(dtype)(patches)["flow"]
    assert relative_l2(found, expected) <= TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("batch", "pixels", "patches"), [(1, 1024, 8), (2, 50, 3), (1, 1, 1)])
def test_multimodal_autoencoding_equals_transformers(tmp_path, dtype, batch, pixels, patches):
    theirs, ours = pair("PerceiverForMultimodalAutoencoding", MULTIMODAL, tmp_path)
    inputs = {
        "image": torch.rand(batch, 4, 3, 16, 16).to(dtype),
        "audio": torch.rand(batch, 128, 1).to(dtype),
        "label": torch.rand(batch, 7).to(dtype),
    }
    points = {"image": torch.randperm(1024)[:pixels], "audio": torch.randperm(8)[:patches], "label": None}
    with torch.no_grad():
        expected = theirs.to(dtype)(inputs=inputs, subsampled_output_points=points).logits
        found = ours.to(dtype)(**inputs, image_points=points["image"], audio_points=points["audio"])
    for name, output in (
        ("image", "image_reconstruction"),
        ("audio", "audio_reconstruction"),
        ("label", "label_logits"),
    ):
        assert relative_l2(found[output], expected[name]) <= TOLERANCES[dtype]


def test_labels_of_the_multimodal_model_are_those_of_its_label_modality(tmp_path):
    _, ours = pair("PerceiverForMultimodalAutoencoding", MULTIMODAL, tmp_path)
    assert ours.config.labels == tuple(f"LABEL_{index}" for index in range(7))


def test_an_output_grid_that_is_not_the_inputs_own_is_refused(tmp_path):
    values = {**MULTIMODAL, "output_shape": [1, 4, 8, 8]}
    MODELS.PerceiverForMultimodalAutoencoding(transformers.PerceiverConfig(**values)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="output_shape"):
        load_checkpoint(tmp_path)
