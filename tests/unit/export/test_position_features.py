"""Fourier features: one Sin and Cos for each side of a grid, outside the batch, in float32."""

import re

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, TensorSpec
from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.export.trace import trace_model
from perceiver_deploy.model.positions import FourierEncoding, FourierPositions
from tests.helpers.factories import perturbed_model, small_config, with_encoder
from tests.helpers.task_factories import mostly_quick

SIDES = {
    "fourier": 2,
    "conv": 2,
    "optical_flow": 2,  # which the decoder's queries share
    "audio_classification": 1,
    "video_classification": 3,  # which three cross-attentions share
    "audiovisual_classification": 3 + 1,
    "multimodal_autoencoding": 2 * (3 + 1),  # as inputs and as queries
    "point_cloud_classification": 3,
}
HALF_ROUNDING = 2.0**-11  # of numbers up to 1


def waves(graph):
    return [node for node in graph.graph.all_nodes() if node.op_type in ("Sin", "Cos")]


@pytest.mark.parametrize("name", mostly_quick(SIDES))
def test_features_are_computed_once_a_run_for_each_side_of_a_grid(name, shared_bundle):
    found = waves(ir.load(shared_bundle(name) / "onnx/fp32.onnx"))
    assert [node.op_type for node in found].count("Sin") == [node.op_type for node in found].count("Cos") == SIDES[name]
    for node in found:
        assert node.inputs[0].dtype == node.outputs[0].dtype == ir.DataType.FLOAT
        if name != "point_cloud_classification":  # whose positions are the data
            assert not re.search(r"batch|\*", str(node.outputs[0].shape))  # nor over the whole grid


def test_repeated_cross_attentions_over_an_image_share_the_features():
    config = with_encoder(small_config("fourier"), num_blocks=3, num_cross_attentions=3, cross_attention_sharing="all")
    model = perturbed_model(config)
    assert len(waves(trace_model(model, model.signature, GraphOptions()))) == 2 * SIDES["fourier"]


class HalfPrecision(nn.Module):
    """Adds features to readings in float16."""

    signature = Signature(
        task="custom",
        axes={"batch": Axis(opt=1), "length": Axis(opt=20)},
        stage=Stage(
            inputs=(TensorSpec(name="readings", dtype="float16", shape=("batch", "length", 1)),),
            outputs=(TensorSpec(name="tokens", dtype="float16", shape=("batch", "length", 65)),),
        ),
    )

    def __init__(self):
        super().__init__()
        self.positions = FourierEncoding(FourierPositions(32, (224,)))

    def forward(self, readings):
        return {"tokens": readings + self.positions((readings.shape[1],), readings)}


def test_features_of_a_half_precision_model_are_rounded_only_when_they_are_done():
    model = HalfPrecision()
    graph = trace_model(model, model.signature, GraphOptions())
    assert {node.outputs[0].dtype for node in waves(graph)} == {ir.DataType.FLOAT}
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"readings": np.zeros((1, 200, 1), np.float16)})
    expected = model.positions((200,), torch.zeros(1)).numpy()
    assert np.abs(found[0] - expected).max() < 2 * HALF_ROUNDING
