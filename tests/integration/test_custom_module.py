"""A user's own module, built from our parts, exports by the same call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from perceiver_deploy import export_model, load, validate_bundle
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, TensorSpec
from perceiver_deploy.errors import BundleError, ExportError
from perceiver_deploy.model.config import AttentionConfig, Semantics
from perceiver_deploy.model.perceiver import AttentionLayer
from perceiver_deploy.model.positions import FourierEncoding, FourierPositions
from perceiver_deploy.model.tasks.signatures import mask_spec


class Sensors(nn.Module):
    """A series of readings to one value for each asked time, masked in both: a small Perceiver IO of one's own."""

    signature = Signature(
        task="custom",
        axes={"batch": Axis(opt=1), "length": Axis(opt=20), "queries": Axis(opt=6, max=50)},
        stage=Stage(
            inputs=(
                TensorSpec(name="readings", dtype="float32", shape=("batch", "length", 4)),
                TensorSpec(name="times", dtype="float32", shape=("queries", 1)),
                mask_spec("batch", "length"),
                TensorSpec(name="asked", dtype="int64", shape=("batch", "queries"), minimum=0, maximum=1),
            ),
            outputs=(TensorSpec(name="values", dtype="float32", shape=("batch", "queries", 2)),),
        ),
    )

    def __init__(self):
        super().__init__()
        self.positions = FourierEncoding(FourierPositions(4, (16,)))
        channels = self.positions.channels
        attention, semantics = AttentionConfig(), Semantics()
        self.latents = nn.Parameter(torch.randn(6, 16))
        self.encode = AttentionLayer(attention, semantics, q_channels=16, kv_channels=4 + channels)
        self.decode = AttentionLayer(attention, semantics, q_channels=channels, kv_channels=16)
        self.head = nn.Linear(channels, 2)

    def forward(self, readings, times, attention_mask, asked):
        batch, length, _ = readings.shape
        positions = self.positions((length,), readings).expand(batch, -1, -1)
        tokens = torch.cat([readings, positions], dim=-1)
        latents = self.encode(self.latents.expand(batch, -1, -1), tokens, attention_mask)
        queries = self.positions.features(times.to(torch.float32)).to(readings.dtype).expand(batch, -1, -1)
        return {"values": self.head(self.decode(queries, latents, query_mask=asked))}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    model = Sensors().train()
    path = tmp_path_factory.mktemp("custom") / "bundle"
    result = export_model(model, path)
    assert model.training  # the caller's model is left as it was
    assert {verdict.passed for verdict in result.verdicts} == {True}
    return model.eval(), path


def test_its_bundle_runs_at_another_shape_with_its_numbers(exported):
    model, path = exported
    rng = np.random.default_rng(0)
    inputs = {
        "readings": rng.standard_normal((3, 11, 4)).astype(np.float32),
        "times": rng.uniform(-1, 1, (7, 1)).astype(np.float32),
        "attention_mask": np.ones((3, 11), np.int64),
        "asked": rng.integers(0, 2, (3, 7)),
    }
    inputs["attention_mask"][0] = 0
    inputs["attention_mask"][1, 4:] = 0
    inputs["asked"][2] = 0
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})["values"]
    for runtime in ("onnxruntime", "openvino"):
        with load(path, runtime=runtime) as session:
            # float32 arithmetic in another order
            np.testing.assert_allclose(session.run(inputs)["values"], expected, rtol=1e-4, atol=1e-5)


def test_it_is_validated_by_golden_samples_because_the_bundle_has_no_source_model(exported):
    _, path = exported
    assert not {"config.json", "model.safetensors"} & Bundle.open(path).manifest.files.keys()
    result = validate_bundle(path)
    assert result.reference == "golden samples"
    assert result.passed
    with pytest.raises(BundleError, match="without its weights"):
        load(path, runtime="torch")


def test_a_module_without_a_signature_is_refused(tmp_path):
    with pytest.raises(ExportError, match="Linear has no `signature`"):
        export_model(nn.Linear(2, 2), tmp_path / "bundle")
    assert not any(tmp_path.iterdir())
