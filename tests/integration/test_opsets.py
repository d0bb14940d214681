"""Graphs of every opset from 17 to 23: valid, of the lowest IR version, and with the numbers of opset 20.

The graph of opset 20 has passed the gate, so another opset is compared with it. What differs is the order in which
float32 is rounded (Gelu by Erf); the bound is the floor of the gate.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from perceiver_deploy import export_model, load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.onnx_header import read_header
from perceiver_deploy.errors import ExportError, UsageError
from perceiver_deploy.evaluate.parity.grid import make_inputs, shape_grid
from perceiver_deploy.export import compatibility
from perceiver_deploy.export.compatibility import newest_readable, require_readable
from perceiver_deploy.export.graph.files import write_graph
from perceiver_deploy.export.opset import set_opset
from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.export.passes.tidy.older_operators import UseOlderOperators
from perceiver_deploy.runtimes.cpu.onnxruntime import OnnxRuntimeSession
from tests.helpers.factories import relative_l2, small_model
from tests.helpers.graph_passes import fired
from tests.helpers.task_factories import LIKE_OTHERS, MODELS

LOWEST_IR = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
# Opset 17 differs most from 20; together the others have convolutions, masks, several inputs and several outputs.
CASES = [(name, 17) for name in MODELS] + [
    (name, opset) for opset in (18, 19, 21, 22, 23) for name in ("conv", "masked_lm", "multimodal_autoencoding")
]


@pytest.mark.parametrize(
    ("name", "opset"),
    [
        pytest.param(
            name,
            opset,
            marks=() if name == "masked_lm" or (opset == 17 and name not in LIKE_OTHERS) else pytest.mark.slow,
        )
        for name, opset in CASES
    ],
)
def test_a_graph_of_another_opset_is_valid_and_gives_the_same_numbers_at_three_shapes(
    name, opset, shared_bundle, tmp_path
):
    bundle = Bundle.open(shared_bundle(name))
    signature, source = bundle.manifest.signature, bundle.file("onnx/fp32.onnx")
    model, target = ir.load(source), tmp_path / "model.onnx"
    set_opset(model, opset)
    write_graph(model, target)
    header = read_header(target)
    assert (header.opsets, header.ir_version) == ({"": opset}, LOWEST_IR[opset])
    onnx.checker.check_model(str(target), full_check=True)
    cases = {case.name: case for case in shape_grid(signature)}
    with (
        OnnxRuntimeSession(source, signature.stage, signature.axes) as expected,
        OnnxRuntimeSession(target, signature.stage, signature.axes) as found,
    ):
        for case in (cases["opt"], cases["odd"], cases["min"]):
            inputs = make_inputs(signature, case, bundle.manifest.preprocessing, seed=2)
            reference = expected.run(inputs)
            for output, array in found.run(inputs).items():
                assert relative_l2(array, reference[output]) < 1e-6, (case.name, output)


def test_names_of_nodes_and_axes_survive_a_change_of_opset(shared_bundle):
    model = ir.load(shared_bundle("fourier") / "onnx/fp32.onnx")
    before = {node.name for node in model.graph.all_nodes()}
    sizes = {str(size) for node in model.graph for size in node.outputs[0].shape}
    set_opset(model, 17)
    after = {node.name for node in model.graph.all_nodes()}
    assert {name for name in before if "Gelu" not in name} <= after
    assert [name for name in after if name.startswith("encoder.self_attends.0.mlp.1/Gelu/")]
    assert {str(size) for node in model.graph for size in node.outputs[0].shape} == sizes


def graph_of(operator, opset, shape=(2, 4), outputs=1, **attributes):
    spec, names = onnx.helper.make_tensor_value_info, [f"y{index}" for index in range(outputs)]
    last = [*shape[:-1], shape[-1] // outputs if isinstance(shape[-1], int) else None]
    node = onnx.helper.make_node(operator, ["x"], names, name="layer/Operator", **attributes)
    graph = onnx.helper.make_graph([node], "g", [spec("x", 1, shape)], [spec(name, 1, last) for name in names])
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)]))


def test_gelu_and_split_are_written_by_older_operators_with_the_same_numbers():
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    for operator, opset, keywords in (
        ("Gelu", 19, {}),
        ("Gelu", 19, {"approximate": "tanh"}),
        ("Split", 17, {"outputs": 2, "axis": -1, "num_outputs": 2}),
    ):
        model = graph_of(operator, 20, **keywords)
        expected = onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
        assert fired(UseOlderOperators(opset), model) == 1
        assert operator not in {node.op_type for node in model.graph}
        found = onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
        for result, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(result, reference, rtol=0, atol=3e-7)  # two roundings of float32 near 1


def test_nothing_is_rewritten_for_an_opset_that_has_the_operator():
    assert fired(UseOlderOperators(20), graph_of("Gelu", 20)) == 0
    assert fired(UseOlderOperators(18), graph_of("Split", 20, outputs=2, axis=-1, num_outputs=2)) == 0


def test_an_operator_that_an_opset_does_not_have_is_named_with_its_node():
    model = graph_of("Swish", 24)
    with pytest.raises(ExportError, match=r"layer/Operator needs the operator Swish, which opset 23 does not have"):
        set_opset(model, 23)


def test_an_operator_that_cannot_be_rewritten_is_named():
    with pytest.raises(ExportError, match=r"rewritten from opset 20 to 17: .* \(Split\)\. Export it with --opset 20"):
        set_opset(graph_of("Split", 20, shape=(2, "n"), outputs=2, axis=-1, num_outputs=2), 17)


def test_export_writes_the_opset_and_the_runtimes_that_were_asked_for_behind_the_gate(tmp_path):
    options = GraphOptions(opset=18)
    export_model(small_model("fourier"), tmp_path / "bundle", options=options, runtimes=["openvino", "openvino"])
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.variants["fp32"].runtimes == ("openvino",)
    assert manifest.provenance["opset"] == read_header(tmp_path / "bundle/onnx/fp32.onnx").opset == 18
    assert manifest.provenance["gate"] == "passed"
    with load(tmp_path / "bundle") as session:
        assert session.runtime == "openvino"


@pytest.mark.parametrize(
    ("opset", "runtimes", "message"),
    [
        (16, ["onnxruntime"], "opset is 16; expected 17 to 23"),
        (24, ["onnxruntime"], "opset is 24; expected 17 to 23"),
        (20, [], "No runtime is given; expected at least one of onnxruntime"),
        (20, ["torch"], "cannot be for 'torch'; expected one of onnxruntime"),
        (23, ["openvino", "tensorrt"], r"tensorrt 10\.12 reads opsets up to 22 .*--opset 22 or less.*--for"),
    ],
)
def test_an_opset_that_does_not_suit_is_refused_before_any_work(opset, runtimes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(compatibility, "installed_version", lambda package: None)
    with pytest.raises(UsageError, match=message):
        export_model("absent", tmp_path / "bundle", options=GraphOptions(opset=opset), runtimes=runtimes)


@pytest.mark.parametrize(
    ("installed", "opset"), [("1.22.3", 22), ("1.23.0", 23), ("1.99.0", 23), ("1.22.0.dev1", 22), ("2.0", 23)]
)
def test_what_a_runtime_reads_is_that_of_the_installed_release(installed, opset, monkeypatch):
    monkeypatch.setattr(compatibility, "installed_version", lambda package: installed)
    text, reads = newest_readable("onnxruntime")
    assert (text, reads.opset, reads.ir_version) == (installed, opset, LOWEST_IR[opset])


def test_the_installed_onnxruntime_reads_every_opset_that_it_is_said_to(tmp_path):
    _, reads = newest_readable("onnxruntime")
    require_readable(reads.opset, ["onnxruntime"])
    spec = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Transpose", ["x"], ["y"])], "g", [spec("x", 1, [1])], [spec("y", 1, [1])]
    )
    opsets = [onnx.helper.make_opsetid("", reads.opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=reads.ir_version)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones(1, np.float32)})[0].tolist() == [1]
