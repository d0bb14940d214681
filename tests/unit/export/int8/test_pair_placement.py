"""Q/DQ pairs before transposes and reshapes: the same numbers, evaluated by the reference, and pairs joined."""

import json

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from perceiver_deploy.export.calibration.observation import observe
from perceiver_deploy.export.graph.files import write_graph
from perceiver_deploy.export.int8 import quantize
from perceiver_deploy.export.int8.pair_placement import LAYOUT, hoist_pairs
from perceiver_deploy.export.options import AXES, GraphOptions
from perceiver_deploy.export.trace import trace_model
from tests.helpers.factories import image_inputs, small_model, text_inputs

SAMPLES = {
    "fourier": [image_inputs(2, 7, 6), image_inputs(3, 10, 12)],
    "masked_lm": [text_inputs(2, 32), text_inputs(3, 11, fully_masked_row=True)],
}


@pytest.fixture(scope="module", params=SAMPLES)
def quantized(request, tmp_path_factory):
    """Samples, and the INT8 graph with its pairs hoisted and as the quantiser placed them."""
    model, samples = small_model(request.param), SAMPLES[request.param]
    graph = trace_model(model, model.signature, GraphOptions())
    graph.metadata_props[AXES] = json.dumps({name: axis.model_dump() for name, axis in model.signature.axes.items()})
    path = tmp_path_factory.mktemp("graph") / "fp32.onnx"
    write_graph(graph, path)
    observed = observe(path, quantize.ranged_tensors(ir.load(path)), lambda: samples[:1])
    ranges = {name: (histogram.low, histogram.high) for name, histogram in observed.items()}
    hoisted, _ = quantize.quantize_model(ir.load(path), ranges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "hoist_pairs", lambda model: 0)
        placed, _ = quantize.quantize_model(ir.load(path), ranges)
    return samples, hoisted, placed


def producers_of_quantized(model):
    return [node.inputs[0].producer() for node in model.graph if node.op_type == "QuantizeLinear"]


def test_hoisted_pairs_give_bit_equal_numbers_at_both_shapes(quantized):
    samples, hoisted, placed = quantized
    evaluators = [ReferenceEvaluator(ir.to_proto(model)) for model in (hoisted, placed)]
    for sample in samples:
        found, expected = (evaluator.run(None, sample) for evaluator in evaluators)
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_no_pair_stands_behind_a_layout_node_that_it_alone_reads(quantized):
    _, hoisted, placed = quantized
    assert any(node is not None and node.op_type in LAYOUT for node in producers_of_quantized(placed))
    for node in producers_of_quantized(hoisted):
        assert node is None or node.op_type not in LAYOUT or len(node.outputs[0].uses()) > 1


def test_keys_and_values_of_one_input_are_rounded_once(quantized):
    samples, hoisted, placed = quantized
    saved = len(producers_of_quantized(placed)) - len(producers_of_quantized(hoisted))
    assert saved > 0 if "pixel_values" in samples[0] else saved == 0  # keys and values of texts are looked up
    sources = [node.inputs[0] for node in hoisted.graph if node.op_type == "QuantizeLinear"]
    assert len(sources) == len(set(sources))


def test_hoisting_again_moves_nothing(quantized):
    _, hoisted, _ = quantized
    assert hoist_pairs(hoisted) == 0
