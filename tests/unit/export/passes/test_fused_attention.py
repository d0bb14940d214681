"""Attentions as one operator: the same numbers as the plain form, in onnxruntime, at several shapes and masks."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from perceiver_deploy.export.attention.match import find_attentions
from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.export.passes.attentions.multi_head_attention import FuseForOnnxruntime
from perceiver_deploy.export.passes.attentions.opset23 import FuseForOpset23
from perceiver_deploy.export.passes.attentions.padded_heads import PadHeads
from perceiver_deploy.export.trace import trace_model
from tests.helpers.factories import image_inputs, perturbed_model, relative_l2, small_model, text_inputs
from tests.helpers.graph_passes import fired, operators
from tests.helpers.task_factories import TASK_CONFIGS

REORDERED = 3e-6  # the same float32 products and sums in another order, through four layers
TEXT = [text_inputs(1, 1), text_inputs(3, 11, fully_masked_row=True), text_inputs(2, 32)]
IMAGES = [image_inputs(1, 2, 2), image_inputs(3, 7, 6), image_inputs(2, 10, 12)]
PATCHES = [
    {"patches": np.random.default_rng(0).standard_normal((batch, 2, 27, height, 5)).astype(np.float32)}
    for batch, height in ((1, 1), (2, 7))
]
SAMPLES = {"masked_lm": TEXT, "text_classification": TEXT, "fourier": IMAGES, "optical_flow": PATCHES}
_GRAPHS: dict[tuple[str, bool], bytes] = {}


def traced(kind, *, reassociate=True):
    """A fresh copy of the graph of a small model, traced once."""
    if (kind, reassociate) not in _GRAPHS:
        model = perturbed_model(TASK_CONFIGS[kind]) if kind in TASK_CONFIGS else small_model(kind)
        graph = trace_model(model, model.signature, GraphOptions(reassociate=reassociate))
        _GRAPHS[kind, reassociate] = ir.to_proto(graph).SerializeToString()
    return ir.from_proto(ir.serde.onnx.load_model_from_string(_GRAPHS[kind, reassociate]))


def run(model, inputs):
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.mark.parametrize(
    ("kind", "reassociate"),
    [("masked_lm", True), ("text_classification", False), ("fourier", True), ("optical_flow", True)],
)
def test_both_fused_forms_give_the_numbers_of_the_plain_one(kind, reassociate):
    plain, fused, opset23 = (traced(kind, reassociate=reassociate) for _ in range(3))
    masked = sum(attention.mask is not None for attention in find_attentions(plain))
    count = operators(plain).count("Softmax")
    assert fired(FuseForOnnxruntime(), fused) == operators(fused).count("MultiHeadAttention") == count - masked
    assert fired(FuseForOpset23(), opset23) == operators(opset23).count("Attention") == count
    assert operators(fused).count("Softmax") == masked
    assert "Softmax" not in operators(opset23)
    for inputs in SAMPLES[kind]:
        expected = run(plain, inputs)
        for other in (fused, opset23):
            for result, reference in zip(run(other, inputs), expected, strict=True):
                assert relative_l2(result, reference) < REORDERED


@pytest.mark.parametrize(("kind", "expected"), [("masked_lm", 1), ("text_classification", 0)])
def test_padded_heads_give_the_numbers_of_the_plain_form_and_only_odd_sizes_are_padded(kind, expected):
    plain, padded = (traced(kind, reassociate=False) for _ in range(2))
    assert fired(PadHeads(), padded) == expected  # the decoder of masked_lm has values of 12 channels a head
    sizes = [shape[3] for a in find_attentions(padded) if (shape := a.weighted.outputs[0].shape) is not None]
    assert [size for size in sizes if size % 8] == []
    for inputs in SAMPLES[kind]:
        for result, reference in zip(run(padded, inputs), run(plain, inputs), strict=True):
            assert relative_l2(result, reference) < REORDERED
