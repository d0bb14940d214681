"""Each pass fires as often as it should and then no more, is exact in float64, and does not ensure what is not so."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.shape_inference import infer_shapes

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, TensorSpec
from perceiver_deploy.export.attention.plans import EARLY_OUTPUT, KEYS_UNPROJECTED, LATE_VALUES, QUERIES_UNPROJECTED
from perceiver_deploy.export.passes import order
from perceiver_deploy.export.passes.algebra.batch_sharing import ShareOverBatch
from perceiver_deploy.export.passes.algebra.reassociation import Reassociate
from perceiver_deploy.export.passes.algebra.stored_rows import StoreRows
from perceiver_deploy.export.passes.algebra.token_tables import LookUpTokens
from perceiver_deploy.export.passes.attentions.multi_head_attention import FuseForOnnxruntime
from perceiver_deploy.export.passes.attentions.opset23 import FuseForOpset23
from perceiver_deploy.export.passes.attentions.padded_heads import PadHeads
from perceiver_deploy.export.passes.base import GraphPass, PassByWay
from perceiver_deploy.export.passes.driver import run_pass, run_passes
from perceiver_deploy.export.passes.grids import large_grids
from perceiver_deploy.export.passes.grids.by_row import AttendByRow
from perceiver_deploy.export.passes.grids.large_grids import CountLargeGrids
from perceiver_deploy.export.passes.names.axis_names import NameAxes
from perceiver_deploy.export.passes.names.metadata import StripMetadata
from perceiver_deploy.export.passes.names.node_names import NameNodes
from perceiver_deploy.export.passes.tidy.constants import FoldConstants
from perceiver_deploy.export.passes.tidy.equal_initializers import ShareEqualInitializers
from perceiver_deploy.export.passes.tidy.equal_nodes import ShareEqualNodes
from perceiver_deploy.export.passes.tidy.no_ops import RemoveNoOps
from perceiver_deploy.export.passes.tidy.older_operators import UseOlderOperators
from perceiver_deploy.export.passes.tidy.ranks import KeepRanks
from perceiver_deploy.export.passes.tidy.weight_layout import TransposeWeights
from tests.helpers.factories import relative_l2
from tests.helpers.graph_passes import fired
from tests.unit.export.passes import test_by_row, test_token_tables
from tests.unit.export.passes.test_algebra import EXACT, run

BATCH, TOKENS = 8, 7
SIZES = {"batch": 1, "tokens": 1000}


def parsed(inputs: str, outputs: str, nodes: str, *, opset: int = 20, **weights: object) -> ir.Model:
    """A model of onnx's text form; a weight that is a tuple is random, of this shape and in float64."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(size=given) if isinstance(given, tuple) else np.asarray(given)
        for name, given in weights.items()
    }
    text = f'<ir_version: 9, opset_import: ["": {opset}]> g ({inputs}) => ({outputs}) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return ir.from_proto(infer_shapes(model, data_prop=True))


def linear(*, transposed: bool) -> ir.Model:
    nodes = "t = Transpose<perm=[1, 0]>(w) h = MatMul(x, t)" if transposed else "h = MatMul(x, w)"
    return parsed("double[batch, 3] x", "double[batch, 3] y", f"{nodes} y = Relu(h)", w=(3, 3))


def constants(*, folded: bool) -> ir.Model:
    nodes = "h = Add(x, w)" if folded else "c = Constant<value = double[2] {1.0, 2.0}>() f = Add(c, w) h = Add(x, f)"
    return parsed("double[batch, 2] x", "double[batch, 2] y", f"{nodes} y = Relu(h)", w=(1, 2))


def branches(second: str) -> ir.Model:
    return parsed("double[batch, 2] x", "double[batch, 2] y", f"a = Relu(x) b = {second}(x) y = Add(a, b)")


def two_biases(*, equal: bool) -> ir.Model:
    nodes, a = "h = Add(x, a) r = Relu(h) y = Add(r, b)", np.arange(2.0)
    return parsed("double[batch, 2] x", "double[batch, 2] y", nodes, a=a, b=a if equal else a + 1)


def no_ops(*, change: bool) -> ir.Model:
    nodes = f"a = Cast<to={1 if change else 11}>(x) b = Cast<to=11>(a) "
    nodes += f"c = Reshape(b, {'wide' if change else 'same'}) d = Expand(c, {'two' if change else 'one'}) y = Relu(d)"
    y = "double[2, 6] y" if change else "double[2, 3] y"
    return parsed("double[2, 3] x", y, nodes, wide=[1, 6], same=[2, 3], one=[1, 1], two=[2, 1])


def picked(place: object) -> ir.Model:
    y = "float[batch, 3] y" if np.ndim(place) == 0 else "float[batch, 1, 3] y"
    return parsed("float[batch, 4, 3] x", y, "a = Gather<axis=1>(x, place) y = Relu(a)", place=place)


def learned(*, expanded: bool) -> ir.Model:
    """Latents that are normed and projected, then added to the input: repeated over the batch, or once."""
    nodes = "s = Shape<start=0, end=1>(x) shape = Concat<axis=0>(s, rest) "
    nodes += "a = Expand(table, shape)" if expanded else "a = Unsqueeze(table, zero)"
    nodes += " b = LayerNormalization(a, scale, shift) c = MatMul(b, w) h = Add(c, x) y = Relu(h)"
    weights = {"table": (4, 3), "scale": (3,), "shift": (3,), "w": (3, 5), "rest": [4, 3], "zero": [0]}
    model = parsed("double[batch, 4, 5] x", "double[batch, 4, 5] y", nodes, **weights)
    if expanded:
        for node in list(model.graph)[2:5]:
            node.outputs[0].shape = ir.Shape(["batch", *node.outputs[0].shape[1:]])
    return model


def attention(*, qk_size: int = 6, v_size: int = 5, masked: bool = False) -> ir.Model:
    """Attention of 3 queries in two heads over tokens."""
    nodes = """
        q = MatMul(z, wq) qs = Reshape(q, split_qk) qh = Transpose<perm=[0, 2, 1, 3]>(qs) qm = Mul(qh, factor)
        k = MatMul(x, wk) ks = Reshape(k, split_qk) kh = Transpose<perm=[0, 2, 3, 1]>(ks)
        v = MatMul(x, wv) vs = Reshape(v, split_v) vh = Transpose<perm=[0, 2, 1, 3]>(vs)
        a = MatMul(qm, kh) m = Add(a, mask) p = Softmax<axis=-1>(SCORES) h = MatMul(p, vh)
        t = Transpose<perm=[0, 2, 1, 3]>(h) c = Reshape(t, merged) o = MatMul(c, wo) y = Relu(o)
    """.replace("SCORES", "m" if masked else "a")
    nodes = nodes if masked else nodes.replace("m = Add(a, mask)", "")
    inputs = "double[batch, 3, 5] z, double[batch, tokens, 6] x" + ", double[batch, 1, 1, tokens] mask" * masked
    weights = {"wq": (5, 2 * qk_size), "wk": (6, 2 * qk_size), "wv": (6, 2 * v_size), "wo": (2 * v_size, 7)}
    shapes = {"split_qk": [0, 0, 2, qk_size], "split_v": [0, 0, 2, v_size], "merged": [0, 0, 2 * v_size]}
    factor = np.array(0.25)  # its root is exact in float32, in which onnx.reference takes it
    return parsed(inputs, "double[batch, 3, 7] y", nodes, **weights, **shapes, factor=factor)


def gelus() -> ir.Model:
    nodes = "a = Gelu(x) b, c = Split<axis=1, num_outputs=2>(a) y = Add(b, c)"
    return parsed("double[batch, 4] x", "double[batch, 2] y", nodes)


def relus(*names: str, note: str | None = None) -> ir.Model:
    model = parsed("double[s0, 3] x", "double[s0, 3] y", "h = Relu(x) y = Relu(h)")
    for node, name in zip(model.graph, names, strict=False):
        node.name = f"{name}/Relu"
        node.metadata_props["pkg.torch.onnx.name_scopes"] = repr(["", name, "relu"])
    if note is not None:
        model.graph.doc_string = model.metadata_props["note"] = note
    return model


def signature() -> Signature:
    x, y = (TensorSpec(name=name, dtype="float32", shape=("batch", 3)) for name in "xy")
    stage = Stage(inputs=(x,), outputs=(y,))
    return Signature(task="image_classification", axes={"batch": Axis(opt=4)}, stage=stage)


def named_axes() -> ir.Model:
    return parsed("double[7, 3] x", "double[7, 3] y", "h = Relu(x) y = Relu(h)")


def grid(kind: str) -> ir.Model:
    """The graph of a small model with the algebra applied, whose encoder attends over a grid if it is of pictures."""
    _, graph = test_by_row.traced(kind)
    graph = ir.from_proto(ir.to_proto(graph))
    run_passes(graph, order.algebra_passes(test_by_row.SIZES))
    return graph


@dataclass(frozen=True)
class Contract:
    """A pass, a graph on which it fires `count` times, and one that has nothing for it."""

    rewrite: GraphPass
    count: int
    fits: Callable[[], ir.Model]
    other: Callable[[], ir.Model]
    ensured_before: bool = False  # a pass that changes nothing ensures nothing
    fires_again: bool = False
    exact_elsewhere: str = ""


BY_ROW = {**test_by_row.SIZES, **SIZES}
CONTRACTS = [
    Contract(TransposeWeights(), 1, lambda: linear(transposed=True), lambda: linear(transposed=False)),
    Contract(FoldConstants(), 2, lambda: constants(folded=False), lambda: constants(folded=True)),
    Contract(ShareEqualNodes(), 1, lambda: branches("Relu"), lambda: branches("Sigmoid")),
    Contract(NameAxes(signature()), 1, relus, named_axes, fires_again=True),
    Contract(RemoveNoOps(), 4, lambda: no_ops(change=False), lambda: no_ops(change=True)),
    Contract(KeepRanks(), 1, lambda: picked(2), lambda: picked([2])),
    Contract(PadHeads(), 1, attention, lambda: attention(qk_size=8, v_size=16)),
    Contract(LookUpTokens(), 1, test_token_tables.graph, lambda: test_token_tables.graph(read_elsewhere=True)),
    Contract(Reassociate(SIZES), 2, attention, lambda: attention(qk_size=1, v_size=1)),
    Contract(ShareOverBatch(), 1, lambda: learned(expanded=True), lambda: learned(expanded=False)),
    Contract(StoreRows(), 1, lambda: learned(expanded=False), lambda: linear(transposed=False)),
    Contract(ShareEqualInitializers(), 1, lambda: two_biases(equal=True), lambda: two_biases(equal=False)),
    Contract(
        FuseForOnnxruntime(), 1, attention, lambda: attention(masked=True), exact_elsewhere="test_fused_attention.py"
    ),
    Contract(FuseForOpset23(), 1, lambda: attention(masked=True), lambda: linear(transposed=False)),
    Contract(
        AttendByRow(BY_ROW, loop_over_queries=True), 1, lambda: grid("fourier"), attention,
        exact_elsewhere="test_by_row.py",
    ),
    Contract(CountLargeGrids(BY_ROW), 1, lambda: grid("fourier"), attention, ensured_before=True, fires_again=True),
    Contract(NameNodes(), 2, lambda: relus("a", "a"), relus, fires_again=True),
    Contract(StripMetadata(), 3, lambda: relus("a", "b", note="secret"), relus),
    Contract(UseOlderOperators(17), 2, gelus, lambda: branches("Sigmoid")),
]  # fmt: skip


def contracts(chosen):
    """Run a test with each of the chosen contracts."""
    found = [each for each in CONTRACTS if chosen(each)]
    return pytest.mark.parametrize("contract", found, ids=[type(each.rewrite).__name__ for each in found])


@pytest.fixture(autouse=True)
def _any_grid_is_large(monkeypatch):
    monkeypatch.setattr(large_grids, "LEAST_SCORES", 0)


def inputs_of(model: ir.Model) -> dict[str, np.ndarray]:
    sizes = {"batch": BATCH, "s0": BATCH, "tokens": TOKENS, "length": TOKENS, "height": 3, "width": 5}
    rng, given = np.random.default_rng(1), {}
    for value in model.graph.inputs:
        shape = [size if isinstance(size, int) else sizes[str(size.value)] for size in value.shape]
        dtype = value.dtype.numpy()
        integral = np.issubdtype(dtype, np.integer)
        given[value.name] = (rng.integers(9, size=shape) if integral else rng.normal(size=shape)).astype(dtype)
    return given


def classes_of(base: type) -> set[type]:
    below = set(itertools.chain.from_iterable(classes_of(each) for each in base.__subclasses__()))
    return {base, *below} - {GraphPass, PassByWay}


def test_every_pass_has_a_contract():
    packaged = {each for each in classes_of(GraphPass) if each.__module__.startswith("perceiver_deploy.")}
    assert packaged == {type(contract.rewrite) for contract in CONTRACTS}


@contracts(lambda each: True)
def test_a_pass_fires_as_often_as_its_form_is_found_and_then_no_more(contract):
    graph = contract.fits()
    assert fired(contract.rewrite, graph) == contract.count
    if not contract.fires_again:
        assert fired(contract.rewrite, graph) == 0


def test_products_of_few_queries_with_many_tokens_are_counted_by_the_way_they_are_associated():
    assert run_pass(attention(), Reassociate(SIZES)) == {
        KEYS_UNPROJECTED: 1, QUERIES_UNPROJECTED: 0, LATE_VALUES: 1, EARLY_OUTPUT: 0
    }  # fmt: skip


@contracts(lambda each: True)
def test_a_pass_does_not_fire_where_its_form_is_not(contract):
    assert fired(contract.rewrite, contract.other()) == 0


@contracts(lambda each: not each.exact_elsewhere)
def test_a_pass_is_exact_in_float64(contract):
    graph = contract.fits()
    inputs = inputs_of(graph)
    plain = ir.from_proto(ir.to_proto(graph))
    fired(contract.rewrite, graph)
    expected, found = run(plain, inputs), run(graph, inputs)
    assert expected
    for output in expected:
        assert relative_l2(found[output], expected[output]) <= EXACT, output


@contracts(lambda each: not each.ensured_before)
def test_what_a_pass_ensures_does_not_hold_before_it_ran(contract):
    graph = contract.fits()
    with pytest.raises(ir.passes.PostconditionError):
        contract.rewrite.ensures(graph)


def without_shape(model: ir.Model) -> ir.Model:
    next(iter(model.graph)).outputs[0].shape = None
    return model


def unknown_gather() -> ir.Model:
    model = picked(2)
    model.graph.inputs[0].shape = None
    return model


READS_SHAPES = (
    RemoveNoOps(), PadHeads(), LookUpTokens(), Reassociate(SIZES), ShareOverBatch(), StoreRows(),
    FuseForOnnxruntime(), FuseForOpset23(), AttendByRow(BY_ROW, loop_over_queries=True), CountLargeGrids(BY_ROW),
)  # fmt: skip
REFUSED = [
    (NameAxes(signature()), lambda: parsed("double[a, b, c] x", "double[a, b, c] y", "y = Relu(x)"), "ranks"),
    (KeepRanks(), unknown_gather, "not known"),
    (UseOlderOperators(17), lambda: without_shape(gelus()), "not known"),
    *[(each, lambda: without_shape(linear(transposed=False)), "not known") for each in READS_SHAPES],
    *[
        (each, lambda: linear(transposed=True), "reads a weight through")
        for each in (PadHeads(), LookUpTokens(), Reassociate(SIZES), StoreRows())
    ],
]


@pytest.mark.parametrize(
    ("rewrite", "graph", "why"), REFUSED, ids=[f"{type(each).__name__} {why}" for each, _, why in REFUSED]
)
def test_a_pass_refuses_a_graph_that_is_not_in_the_form_it_requires(rewrite, graph, why):
    with pytest.raises(ir.passes.PreconditionError, match=why):
        fired(rewrite, graph())
