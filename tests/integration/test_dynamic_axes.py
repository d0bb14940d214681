"""Every model at the least, an odd and the largest size of every axis, in each engine; the names in its file."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from perceiver_deploy import build_engine, load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs, shape_grid
from perceiver_deploy.evaluate.parity.reference import Reference
from perceiver_deploy.evaluate.parity.verdicts import Candidate, judge
from perceiver_deploy.runtimes.nvidia.profiles import default_sizes
from tests.helpers.task_factories import MODELS, mostly_quick, named_model

BUILT = ("conv", "masked_lm", "optical_flow")
"""Built by `make test`; the others by `make test-slow`."""


@pytest.fixture(params=mostly_quick(MODELS))
def name(request):
    return request.param


def extreme_cases(signature):
    """Where nothing bounds an axis, its largest size is the one that an engine is built for."""
    sizes = {axis: default_sizes(axis, signature.axes[axis]) for axis in signature.axes}
    odd = next(case for case in shape_grid(signature) if case.name == "odd")
    return [
        Case("min", {axis: size.min for axis, size in sizes.items()}),
        odd,
        Case("max", {axis: size.max for axis, size in sizes.items()}),
    ]


def test_numbers_are_eagers_at_the_least_an_odd_and_the_largest_size_of_every_axis(name, shared_bundle):
    bundle, model = Bundle.open(shared_bundle(name)), named_model(name)
    reference, preprocessing = Reference(model, model.signature), bundle.manifest.preprocessing
    cases = extreme_cases(model.signature)
    samples = [reference.sample(case.name, make_inputs(model.signature, case, preprocessing, seed=5)) for case in cases]
    for runtime in ("onnxruntime", "openvino"):
        with load(bundle, runtime=runtime) as session:
            candidate = Candidate(session, "fp32", "fp32")
            verdicts = [verdict for sample in samples for verdict in judge([candidate], sample)]
        assert len(verdicts) == len(cases) * len(model.signature.stage.outputs)
        assert [verdict for verdict in verdicts if not verdict.passed] == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in BUILT else pytest.mark.slow) for name in MODELS]
)
def test_tensorrt_builds_one_engine_from_the_least_to_the_largest_size_of_every_axis(name, copied_bundle, capfd):
    pytest.importorskip("tensorrt_rtx", reason="building engines needs tensorrt-rtx-cu13")
    bundle = copied_bundle(name)
    capfd.readouterr()
    result = build_engine(bundle)
    assert capfd.readouterr().out == ""
    assert result.engine_bytes > 100_000
    axes = named_model(name).signature.axes
    (profile,) = result.facts["axes"]
    assert profile == {axis: default_sizes(axis, axes[axis])._asdict() for axis in axes}
    assert all(sizes["min"] < sizes["max"] for sizes in profile.values())


def test_sizes_in_the_file_are_numbers_or_named_after_axes_and_all_are_known(name, shared_bundle):
    signature = named_model(name).signature
    graph = ir.load(shared_bundle(name) / "onnx/fp32.onnx").graph
    values = [*graph.inputs, *(output for node in graph.all_nodes() for output in node.outputs)]
    assert [value.name for value in values if value.shape is None or value.dtype is None] == []
    symbols = {str(size.value) for value in values for size in value.shape if not isinstance(size, int)}
    words = {word for symbol in symbols for word in re.findall(r"[A-Za-z_]\w*", symbol)}
    assert words == set(signature.axes)
    for value, spec in zip(graph.inputs, signature.stage.inputs, strict=True):
        assert [size if isinstance(size, int) else str(size.value) for size in value.shape] == list(spec.shape)


def test_nodes_are_named_after_modules_of_the_model_or_after_the_graph_where_they_belong_to_none(name, shared_bundle):
    modules = set(dict(named_model(name).named_modules())) - {""}
    graph = ir.load(shared_bundle(name) / "onnx/fp32.onnx").graph
    names = [node.name for node in graph.all_nodes()]
    assert len(names) == len(set(names))
    paths = [node_name.partition("/")[0] for node_name in names]
    assert {path for path in paths if path != "graph"} <= modules
    # what a model does in its own `forward`: sizes, a gather, the tied output weights; never a whole attention
    outside = {node.op_type for node, path in zip(graph.all_nodes(), paths, strict=True) if path == "graph"}
    assert outside & {"Softmax", "LayerNormalization", "Gelu", "Conv", "Gemm"} == set()
    attentions = {path for node, path in zip(graph.all_nodes(), paths, strict=True) if node.op_type == "Softmax"}
    assert attentions == {
        path for path in modules if re.search(r"(cross_attention|later_cross_attentions\.\d+|self_attends\.\d+)$", path)
    }


def test_the_checker_of_onnx_accepts_the_file_with_full_shape_inference(name, shared_bundle):
    path = shared_bundle(name) / "onnx/fp32.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True, data_prop=True)
    known = {value.name: value for value in [*inferred.graph.value_info, *inferred.graph.output]}
    outputs = [output for node in inferred.graph.node for output in node.output if output]
    assert [output for output in outputs if not known[output].type.tensor_type.HasField("shape")] == []


def test_a_file_that_was_exported_has_nothing_random_in_it(name, shared_bundle):
    graph = ir.load(shared_bundle(name) / "onnx/fp32.onnx").graph
    random = {"Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial"}
    assert {node.op_type for node in graph.all_nodes()} & random == set()


def test_a_single_token_does_not_spoil_the_numbers_of_later_sizes(shared_bundle):
    bundle, model = Bundle.open(shared_bundle("fourier")), named_model("fourier")
    cases = {case.name: case for case in extreme_cases(model.signature)}
    cases["opt"] = Case("opt", {name: axis.opt for name, axis in model.signature.axes.items()} | {"batch": 1})
    inputs = {name: make_inputs(model.signature, case, bundle.manifest.preprocessing) for name, case in cases.items()}
    with load(bundle, "onnxruntime") as session:
        expected = {name: session.run(one)["logits"] for name, one in inputs.items()}
    with load(bundle, "openvino") as session:
        for name in ("opt", "min", "odd", "min", "max", "opt", "min", "opt"):
            np.testing.assert_allclose(session.run(inputs[name])["logits"], expected[name], rtol=1e-3, atol=1e-4)
