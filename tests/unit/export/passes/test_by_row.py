"""Attending over a grid row by row: exact in float64, the same numbers in both CPU runtimes, few scores held."""

import itertools
from functools import cache
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import openvino
import pytest
from onnx.reference.ops import op_loop

from perceiver_deploy.errors import ExportError
from perceiver_deploy.evaluate.parity.grid import Case
from perceiver_deploy.export.attention.fusibility import list_attentions
from perceiver_deploy.export.graph.flops import count_flops
from perceiver_deploy.export.opset import set_opset
from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.export.passes.driver import run_pass, run_passes
from perceiver_deploy.export.passes.grids import large_grids
from perceiver_deploy.export.passes.grids.by_row import KEYS, QUERIES, AttendByRow
from perceiver_deploy.export.passes.order import algebra_passes
from perceiver_deploy.export.trace import trace_model
from tests.helpers.factories import perturbed_model, relative_l2, with_encoder
from tests.unit.export.passes.test_algebra import CONFIGS, EXACT, MANY, double_inputs, in_float64, one_head, run

REORDERED = 3e-6  # the same float32 products and sums in another order
SIZES = {"batch": 1, **MANY}
GRIDS = [(2, 1, 1), (3, 1, 9), (1, 7, 1), (2, 10, 12)]
"""Batch, height and width: one position, one row, one column, more than was traced."""
FOUND = {"fourier": (1, 0), "conv": (1, 0), "optical_flow": (1, 1)}
"""How many attentions have the grid's tokens as keys, and as queries."""


@pytest.fixture(autouse=True)
def _any_grid_is_large(monkeypatch):
    monkeypatch.setattr(large_grids, "LEAST_SCORES", 0)


@pytest.fixture(autouse=True)
def _reference_stacks(monkeypatch):
    """What a Loop gives at each turn is stacked along a new axis; onnx's reference joins it along the first one."""
    monkeypatch.setattr(op_loop, "np", SimpleNamespace(array=np.array, empty=np.empty, vstack=np.stack))


def rewritten(graph, *, loop_over_queries):
    graph = ir.from_proto(ir.to_proto(graph))
    run_passes(graph, algebra_passes(SIZES))
    return graph, run_pass(graph, AttendByRow(SIZES, loop_over_queries=loop_over_queries))


@cache
def traced(name, **encoder):
    """A small model with one head in every cross-attention, and its graph."""
    model = perturbed_model(with_encoder(one_head(CONFIGS[name]), **encoder))
    return model, trace_model(model, model.signature, GraphOptions(reassociate=False))


def cases(model):
    for batch, height, width in GRIDS:
        scale = model.signature.axes["height"].min  # a model with a patch or a convolution takes no less
        yield Case("grid", {"batch": batch, "height": max(height, scale), "width": max(width, scale)})


@pytest.mark.parametrize("loop_over_queries", [False, True])
@pytest.mark.parametrize("name", FOUND)
def test_a_loop_over_rows_is_exact_at_every_shape(name, loop_over_queries):
    model, graph = traced(name)
    plain = in_float64(graph)
    by_rows, counts = rewritten(plain, loop_over_queries=loop_over_queries)
    assert (counts[KEYS], counts[QUERIES]) == FOUND[name]
    for seed, case in enumerate(cases(model)):
        inputs = double_inputs(model, case, seed)
        expected, found = run(plain, inputs), run(by_rows, inputs)
        for output in expected:
            assert relative_l2(found[output], expected[output]) <= EXACT, (case, output)


@pytest.mark.parametrize("loop_over_queries", [False, True])
def test_both_cpu_runtimes_give_the_plain_numbers_with_large_offsets_too(loop_over_queries, tmp_path):
    _, plain = traced("optical_flow")
    by_rows, counts = rewritten(plain, loop_over_queries=loop_over_queries)
    assert sum(counts.values()) > 0
    onnx.checker.check_model(ir.to_proto(by_rows), full_check=True)
    ir.save(by_rows, tmp_path / "rows.onnx")
    expected = onnxruntime.InferenceSession(ir.to_proto(plain).SerializeToString())
    found = onnxruntime.InferenceSession(tmp_path / "rows.onnx")
    compiled = openvino.Core().compile_model(tmp_path / "rows.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for (batch, height, width), offset in itertools.product(GRIDS, (0, 30)):
        patches = np.random.default_rng(height).standard_normal((batch, 2, 27, height, width), np.float32) + offset
        (reference,) = expected.run(None, {"patches": patches.astype(np.float32)})
        for flow in (found.run(None, {"patches": patches})[0], compiled({"patches": patches})[0]):
            assert relative_l2(flow, reference) < REORDERED, (batch, height, width, offset)


def test_no_tensor_of_the_graph_has_the_scores_of_all_positions():
    latents = 13  # as no other size
    _, graph = traced("optical_flow", num_latents=latents)
    by_rows, _ = rewritten(graph, loop_over_queries=True)
    held = [str(value.shape) for node in by_rows.graph.all_nodes() for value in node.outputs if value.shape is not None]
    assert not [shape for shape in held if str(latents) in shape and "height" in shape and "width" in shape]


def test_operations_are_counted_for_every_row_and_are_fewer():
    model, graph = traced("optical_flow")
    sizes = {"batch": 1, "height": 40, "width": 48}
    before = ir.from_proto(ir.to_proto(graph))
    run_passes(before, algebra_passes(SIZES))
    forms = [rewritten(graph, loop_over_queries=loop)[0] for loop in (False, True)]
    added, looped = (count_flops(form, sizes) for form in forms)
    for module in ("encoder.cross_attention", "decoder.cross_attention"):
        assert added[module] == looped[module] < count_flops(before, sizes)[module]
    for form, listed in zip(forms, ("plain operators, rows and columns apart", "a Loop over rows"), strict=True):
        encoder, *_, decoder = list_attentions(form, model.signature.axes)
        assert (encoder.form, decoder.form) == ("a Loop over rows", listed)
        assert encoder.queries == decoder.keys == CONFIGS["optical_flow"].encoder.num_latents
        opt = {name: model.signature.axes[name].opt for name in ("height", "width")}
        assert encoder.keys == decoder.queries == opt["height"] * opt["width"]
        assert encoder.fuses["onnxruntime"] == "fused"


@pytest.mark.parametrize("opset", [18, 23])
def test_a_loop_can_be_written_in_another_opset(opset):
    _, graph = traced("optical_flow")
    by_rows, _ = rewritten(graph, loop_over_queries=True)
    patches = np.random.default_rng(0).standard_normal((2, 2, 27, 3, 5), np.float32)
    (expected,) = onnxruntime.InferenceSession(ir.to_proto(by_rows).SerializeToString()).run(None, {"patches": patches})
    set_opset(by_rows, opset)
    (found,) = onnxruntime.InferenceSession(ir.to_proto(by_rows).SerializeToString()).run(None, {"patches": patches})
    assert relative_l2(found, expected) < REORDERED


def test_an_opset_that_a_loop_cannot_be_written_in_is_an_error():
    _, graph = traced("optical_flow")
    by_rows, _ = rewritten(graph, loop_over_queries=False)
    with pytest.raises(ExportError, match="could not be rewritten from opset 20 to 17"):
        set_opset(by_rows, 17)


SLOW = [pytest.param(f"{kind}_classification", marks=pytest.mark.slow) for kind in ("audio", "video")]


@pytest.mark.parametrize("name", ["masked_lm", *SLOW])
def test_what_is_no_grid_of_rows_and_columns_is_left_as_it_is(name, shared_bundle):
    graph = ir.load(shared_bundle(name) / "onnx/fp32.onnx")
    assert rewritten(graph, loop_over_queries=True)[1] == {KEYS: 0, QUERIES: 0}


def test_a_small_grid_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(large_grids, "LEAST_SCORES", 1 << 24)
    _, graph = traced("fourier")
    assert rewritten(graph, loop_over_queries=True)[1] == {KEYS: 0, QUERIES: 0}
