import itertools

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, TensorSpec
from perceiver_deploy.export.passes.names.axis_names import NameAxes
from perceiver_deploy.export.passes.names.metadata import StripMetadata
from perceiver_deploy.export.passes.names.node_names import NameNodes
from perceiver_deploy.export.passes.tidy.weight_layout import TransposeWeights
from tests.helpers.graph_passes import fired, model, node, operators, value, weight

SCOPES = "pkg.torch.onnx.name_scopes"


def run(model, x):
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


# TransposeWeights


def linear(w, perm=(1, 0)):
    """y = x transpose(w), as the exporter writes a linear layer."""
    x, y, t = value("x", 2, 3), value("y", 2, 4), value("t", 3, 4)
    attributes = {} if perm is None else {"perm": perm}
    nodes = [node("Transpose", [w], t, **attributes), node("MatMul", [x, t], y)]
    return model([x], [y], nodes, [w])


@pytest.mark.parametrize("perm", [(1, 0), None], ids=["perm given", "perm left out"])
def test_transpose_of_a_weight_becomes_a_transposed_weight(perm):
    array = np.arange(12).reshape(4, 3)
    graph = linear(weight("w", array), perm)
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    expected = run(graph, x)
    assert fired(TransposeWeights(), graph) == 1
    assert operators(graph) == ["MatMul"]
    stored = graph.graph.initializers["w.transposed"]
    assert stored.const_value.numpy().tolist() == array.T.tolist()
    assert list(stored.shape) == [3, 4]
    np.testing.assert_array_equal(run(graph, x), expected)


def test_transposes_of_one_weight_share_one_stored_array():
    w, x = weight("w", np.eye(3)), value("x", 2, 3)
    t1, t2, h, y = value("t1", 3, 3), value("t2", 3, 3), value("h", 2, 3), value("y", 2, 3)
    nodes = [
        node("Transpose", [w], t1, perm=(1, 0)),
        node("MatMul", [x, t1], h),
        node("Transpose", [w], t2),
        node("MatMul", [h, t2], y),
    ]
    graph = model([x], [y], nodes, [w])
    assert fired(TransposeWeights(), graph) == 2
    assert operators(graph) == ["MatMul", "MatMul"]
    assert list(graph.graph.initializers) == ["w.transposed"]


def test_different_permutations_of_one_weight_are_stored_apart():
    w, x = weight("w", np.arange(8).reshape(2, 2, 2)), value("x", 2, 2, 2)
    t1, t2, h, y = (value(name, 2, 2, 2) for name in ("t1", "t2", "h", "y"))
    nodes = [
        node("Transpose", [w], t1, perm=(0, 2, 1)),
        node("Add", [x, t1], h),
        node("Transpose", [w], t2),
        node("Add", [h, t2], y),
    ]
    graph = model([x], [y], nodes, [w])
    x = np.zeros((2, 2, 2), np.float32)
    expected = run(graph, x)
    assert fired(TransposeWeights(), graph) == 2
    np.testing.assert_array_equal(run(graph, x), expected)


def test_transpose_of_an_activation_is_left_alone():
    x, y = value("x", 2, 3), value("y", 3, 2)
    graph = model([x], [y], [node("Transpose", [x], y, perm=(1, 0))])
    assert fired(TransposeWeights(), graph) == 0
    assert operators(graph) == ["Transpose"]


def test_transpose_of_a_weight_that_is_itself_an_output_keeps_the_output():
    w, x = weight("w", np.arange(6).reshape(2, 3)), value("x", 1)
    y, z = value("y", 3, 2), value("z", 1)
    graph = model([x], [y, z], [node("Transpose", [w], y), node("Relu", [x], z)], [w])
    fired(TransposeWeights(), graph)
    x = np.zeros(1, np.float32)
    assert run(graph, x)[0].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert graph.graph.outputs[0].name == "y"


# NameAxes


def signature(*output):
    axes = {name: Axis(opt=4) for name in ("batch", "height", "width")}
    x = TensorSpec(name="x", dtype="float32", shape=("batch", 3, "height", "width"))
    y = TensorSpec(name="y", dtype="float32", shape=output)
    return Signature(task="image_classification", axes=axes, stage=Stage(inputs=(x,), outputs=(y,)))


def two_relus(inner, last):
    x, h, y = value("x", "s0", 3, "s7", "s70"), value("h", *inner), value("y", *last)
    return model([x], [y], [node("Relu", [x], h), node("Relu", [h], y)])


def shape_of(value):
    return [size if isinstance(size, int) else str(size.value) for size in value.shape]


def test_axes_of_inputs_values_and_outputs_get_the_names_of_the_signature():
    graph = two_relus(["s0", 3, "s7", "s70"], ["s0", 3, "s7", "s70"])
    assert fired(NameAxes(signature("batch", 3, "height", "width")), graph) == 3
    inner = next(iter(graph.graph)).outputs[0]
    for found in (graph.graph.inputs[0], inner, graph.graph.outputs[0]):
        assert shape_of(found) == ["batch", 3, "height", "width"]


def test_axes_inside_expressions_are_renamed_as_whole_words():
    graph = two_relus(["s0", "s7*s70", "3*s7 + s70"], ["s0", 3, "s7", "s70"])
    fired(NameAxes(signature("batch", 3, "height", "width")), graph)
    inner = next(iter(graph.graph)).outputs[0]
    assert shape_of(inner) == ["batch", "height*width", "3*height + width"]


def test_whole_divisions_are_written_as_in_the_signature_and_sizes_left_unknown_are_inferred():
    graph = two_relus(["s0", 3, "(s7//4)", "2*((s70//2)) + 1"], ["s0", 3, "s7", "s70"])
    fired(NameAxes(signature("batch", 3, "height", "width")), graph)
    assert shape_of(next(iter(graph.graph)).outputs[0]) == ["batch", 3, "height/4", "2*(width/2) + 1"]
    graph = two_relus(["s0", 3, None, None], ["s0", 3, "s7", "s70"])
    fired(NameAxes(signature("batch", 3, "height", "width")), graph)
    assert shape_of(next(iter(graph.graph)).outputs[0]) == ["batch", 3, "height", "width"]


def test_an_axis_that_was_fixed_to_a_number_stays_a_number():
    x, y = value("x", "s0", 3, 5, "s70"), value("y", "s0", 3, 5, "s70")
    graph = model([x], [y], [node("Relu", [x], y)])
    assert fired(NameAxes(signature("batch", 3, "height", "width")), graph) == 2
    assert shape_of(graph.graph.inputs[0]) == ["batch", 3, 5, "width"]
    assert shape_of(graph.graph.outputs[0]) == ["batch", 3, 5, "width"]


def test_an_output_axis_that_is_another_than_declared_is_not_renamed_to_it():
    graph = two_relus(["s0", 3, "s7", "s70"], ["s0", 3, "s70", "s70"])
    fired(NameAxes(signature("batch", 3, "height", "width")), graph)
    assert shape_of(graph.graph.outputs[0]) == ["batch", 3, "width", "width"]


# NameNodes


def chain(*scopes):
    """Relu after Relu, each with the exporter's list of scopes."""
    values = [value(f"v{index}", 1) for index in range(len(scopes) + 1)]
    nodes = [node("Relu", [source], result) for source, result in itertools.pairwise(values)]
    for relu, scope in zip(nodes, scopes, strict=True):
        relu.metadata_props.update({} if scope is None else {SCOPES: repr(scope)})
    return model(values[:1], values[-1:], nodes)


def test_nodes_are_named_after_the_innermost_module_and_numbered():
    graph = chain(
        ["", "encoder", "encoder.query", "relu"], ["", "encoder", "encoder.query", "relu_1"], ["", "encoder", "relu_2"]
    )
    assert fired(NameNodes(), graph) == 3
    assert [node.name for node in graph.graph] == ["encoder.query/Relu", "encoder.query/Relu_2", "encoder/Relu"]


def test_nodes_outside_any_module_are_named_after_the_graph():
    graph = chain(None, ["", "relu"], ["_internal", "relu"])
    assert fired(NameNodes(), graph) == 0
    assert [node.name for node in graph.graph] == ["graph/Relu", "graph/Relu_2", "graph/Relu_3"]


# StripMetadata


def test_strip_metadata_leaves_nothing_of_the_machine_in_the_file_and_counts_what_it_removed():
    secret = {"where": "/home/someone/secret"}
    text = "/home/someone/secret"
    x, y = value("x", 2, 3), value("y", 2, 4)
    w = weight("w", np.ones((3, 4)))
    graph = model([x], [y], [node("MatMul", [x, w], y, name="n")], [w])
    holders = [graph, graph.graph, x, y, w, next(iter(graph.graph))]
    for holder in holders:
        holder.metadata_props.update(secret)
        holder.doc_string = text
    assert text.encode() in ir.to_proto(graph).SerializeToString()
    assert fired(StripMetadata(), graph) == len(holders)
    assert text.encode() not in ir.to_proto(graph).SerializeToString()
    assert fired(StripMetadata(), graph) == 0


def test_strip_metadata_keeps_what_the_graph_computes():
    graph = linear(weight("w", np.arange(12).reshape(4, 3)))
    x = np.ones((2, 3), np.float32)
    expected = run(graph, x)
    fired(StripMetadata(), graph)
    np.testing.assert_array_equal(run(graph, x), expected)
