"""The rewrites are exact: in float64, with and without them, every kind of model gives the same numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.export.attention import plans as attention_plans
from perceiver_deploy.export.attention.match import find_attentions
from perceiver_deploy.export.attention.plans import (
    AS_IT_WAS,
    EARLY_OUTPUT,
    KEYS_UNPROJECTED,
    LATE_VALUES,
    QUERIES_UNPROJECTED,
    AttentionSizes,
    cheapest,
    score_costs,
    value_costs,
)
from perceiver_deploy.export.graph.flops import count_flops
from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.export.passes.algebra.token_tables import LOOKED_UP
from perceiver_deploy.export.passes.driver import run_passes
from perceiver_deploy.export.passes.order import algebra_passes
from perceiver_deploy.export.trace import trace_model
from perceiver_deploy.model.config import AttentionConfig
from tests.helpers.factories import KINDS, perturbed_model, relative_l2, small_config, with_encoder
from tests.helpers.task_factories import TASK_CONFIGS

EXACT = 1e-12
"""Relative L2 in float64: some hundred roundings of 1e-16 in sums in another order."""
MANY = {"height": 40, "width": 48, "length": 1500, "samples": 4000, "points": 1500, "entities": 1500, "frames": 16}
MANY |= {"queries": 1500, "queries_image": 1500, "queries_audio": 1500}


def one_head(config):
    """The same model with one head in every cross-attention, whose products can be associated in every way."""
    cross = AttentionConfig(num_heads=1, qk_channels=16, v_channels=48)
    decoder = dataclasses.replace(config.decoder, cross_attention=cross)
    return dataclasses.replace(with_encoder(config, cross_attention=cross), decoder=decoder)


def in_float64(model):
    """The graph with every float32 weight, value and cast in float64."""
    wide = ir.from_proto(ir.to_proto(model))
    for value in wide.graph.initializers.values():
        if value.dtype == ir.DataType.FLOAT:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float64), name=value.name)
    for node in wide.graph.all_nodes():
        if node.op_type == "Cast" and node.attributes.get_int("to") == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.DOUBLE))
        fill = node.attributes.get("value")
        if fill is not None and fill.as_tensor().dtype == ir.DataType.FLOAT:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(fill.as_tensor().numpy().astype(np.float64)))
    values = [*wide.graph.inputs, *wide.graph.initializers.values()]
    for value in [*values, *(output for node in wide.graph.all_nodes() for output in node.outputs)]:
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.DOUBLE)
    return wide


def run(model, inputs):
    names = [value.name for value in model.graph.outputs]
    return dict(zip(names, ReferenceEvaluator(ir.to_proto(model)).run(names, inputs), strict=True))


def double_inputs(model, case, seed):
    inputs = make_inputs(model.signature, case, None, seed)
    return {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in inputs.items()}


def cases(axes):
    """Three shapes; a mask's forms are seen at each of them."""
    least = {name: axis.min for name, axis in axes.items()}
    opt = {name: axis.opt for name, axis in axes.items()}
    between = {
        name: axis.min + (axis.opt - axis.min) // 2 // axis.multiple_of * axis.multiple_of
        for name, axis in axes.items()
    }
    return [
        Case("least", {**least, "batch": 2}, "padded"),
        Case("between", {**between, "batch": 3}, "fully masked row"),
        Case("opt", {**opt, "batch": 1}, "half"),
    ]


QUICK = ("masked_lm", "optical_flow", "tokens", "multitask_text")
CONFIGS = {**{kind: small_config(kind) for kind in KINDS}, **TASK_CONFIGS}


@pytest.mark.parametrize(
    ("name", "heads"),
    [pytest.param(name, "one head", marks=() if name in QUICK else pytest.mark.slow) for name in CONFIGS]
    + [("fourier", "several heads"), ("masked_lm", "several heads")]
    + [pytest.param(name, "several heads", marks=pytest.mark.full) for name in CONFIGS],
)
def test_the_algebra_is_exact_at_three_shapes_with_masks(name, heads):
    config = CONFIGS[name]
    if heads == "one head":
        if not hasattr(config.decoder, "cross_attention"):
            pytest.skip("a mean decoder has no cross-attention")
        config = one_head(config)
    model = perturbed_model(config)
    plain = in_float64(trace_model(model, model.signature, GraphOptions(reassociate=False)))
    rewritten = ir.from_proto(ir.to_proto(plain))
    # judged as where there are many inputs and queries, so that as much as possible is rewritten
    counts = run_passes(rewritten, algebra_passes({**dict.fromkeys(model.signature.axes, 1), **MANY, "batch": 1}))
    if heads == "one head":
        assert counts[KEYS_UNPROJECTED] + counts[QUERIES_UNPROJECTED] + counts[LOOKED_UP] > 0
        assert counts[LATE_VALUES] + counts[EARLY_OUTPUT] + counts[LOOKED_UP] > 0
    assert sum(counts.values()) > 0
    for seed, case in enumerate(cases(model.signature.axes)):
        inputs = double_inputs(model, case, seed)
        expected, found = run(plain, inputs), run(rewritten, inputs)
        for output in expected:
            assert relative_l2(found[output], expected[output]) <= EXACT, (case, output)


def sizes_of(**changes):
    published = {
        "heads": 1, "queries": 512, "tokens": 50_176, "q_channels": 1024, "kv_channels": 261, "qk_channels": 261,
        "v_channels": 261, "out_channels": 1024, "stored_query": True,
    }  # fmt: skip
    return AttentionSizes(**{**published, **changes})


@pytest.mark.parametrize(
    ("sizes", "scores", "values"),
    [
        (sizes_of(), KEYS_UNPROJECTED, LATE_VALUES),
        (sizes_of(v_channels=1024), KEYS_UNPROJECTED, LATE_VALUES),
        # language: 8 heads at 2048 tokens
        (
            sizes_of(heads=8, queries=256, tokens=2048, q_channels=1280, kv_channels=768, qk_channels=256,
                     v_channels=1280, out_channels=1280),
            AS_IT_WAS, AS_IT_WAS,
        ),
        # the decoder of optical flow: many queries, few latents
        (
            sizes_of(queries=182_528, tokens=2048, q_channels=322, kv_channels=512, qk_channels=512, v_channels=512,
                     out_channels=322, stored_query=False),
            QUERIES_UNPROJECTED, EARLY_OUTPUT,
        ),
        # latent self-attention
        (
            sizes_of(heads=8, tokens=512, kv_channels=1024, qk_channels=1024, v_channels=1024, stored_query=False),
            AS_IT_WAS, AS_IT_WAS,
        ),
    ],
    ids=["fourier", "wide values", "language", "flow decoder", "self-attention"],
)  # fmt: skip
def test_each_attention_of_the_published_models_is_associated_the_cheapest_way(sizes, scores, values):
    assert cheapest([score_costs(sizes)]) == scores
    assert cheapest([value_costs(sizes)]) == values


@pytest.mark.parametrize(
    ("kind", "name", "queries", "tokens", "scores", "values"),
    [
        ("fourier", "encoder.cross_attention", 8, 40 * 48, KEYS_UNPROJECTED, LATE_VALUES),
        ("optical_flow", "decoder.cross_attention", 40 * 48, 8, QUERIES_UNPROJECTED, EARLY_OUTPUT),
    ],
)
def test_an_attention_takes_the_operations_that_its_plan_predicts(
    kind, name, queries, tokens, scores, values, monkeypatch
):
    monkeypatch.setattr(attention_plans, "MULTIPLY_ADDS_PER_ELEMENT", 0)  # what is left is counted in the graph too
    model = perturbed_model(one_head(CONFIGS[kind]))
    plain = trace_model(model, model.signature, GraphOptions(reassociate=False))
    rewritten = ir.from_proto(ir.to_proto(plain))
    sizes = {"batch": 1, "height": 40, "width": 48}
    run_passes(rewritten, algebra_passes(sizes))
    layer = model.get_submodule(name)
    plan = AttentionSizes(
        heads=1,
        queries=queries,
        tokens=tokens,
        q_channels=layer.query.in_features,
        kv_channels=layer.key.in_features,
        qk_channels=layer.key.out_features,
        v_channels=layer.value.out_features,
        out_channels=layer.output.out_features,
        stored_query=False,
    )
    stored = dataclasses.replace(plan, stored_query=name.startswith("encoder"))  # the latents' projection

    def predicted(plan, scores, values):
        ways = score_costs(plan)[scores], value_costs(plan)[values]
        return 2 * sum(cost.each + cost.once for cost in ways)

    def counted(graph):
        flops = count_flops(graph, sizes)
        return sum(flops[module] for module in flops if module.startswith(name) and ".mlp." not in module)

    assert counted(plain) == predicted(plan, AS_IT_WAS, AS_IT_WAS)
    assert counted(rewritten) == predicted(stored, scores, values) < 0.7 * counted(plain)


def test_no_reassociate_leaves_every_projection_in_place():
    model = perturbed_model(small_config("fourier"))
    plain = trace_model(model, model.signature, GraphOptions(reassociate=False))
    attentions = find_attentions(plain)
    assert len(attentions) == 1 + 2 + 1  # cross-attention, two blocks of one layer, decoder
    for attention in attentions:
        assert attention.query.weight is not None
        assert attention.key.weight is not None
        assert attention.value.weight is not None


def test_keys_and_values_of_repeated_cross_attentions_with_shared_weights_are_computed_once():
    config = with_encoder(small_config("fourier"), num_blocks=3, num_cross_attentions=3, cross_attention_sharing="all")
    model = perturbed_model(config)
    graph = trace_model(model, model.signature, GraphOptions(reassociate=False))
    names = [node.name for node in graph.graph.all_nodes() if node.op_type == "MatMul"]
    assert [n for n in names if n.startswith("encoder.cross_attention.key/")] == ["encoder.cross_attention.key/MatMul"]
    assert [n for n in names if n.startswith("encoder.cross_attention.value/")] == [
        "encoder.cross_attention.value/MatMul"
    ]
    assert len([n for n in names if n.startswith("encoder.cross_attention.query/")]) == 3


def test_flops_of_a_graph_are_those_of_its_matrix_products():
    model = perturbed_model(small_config("text_classification"))
    graph = trace_model(model, model.signature, GraphOptions(reassociate=False))
    flops = count_flops(graph, {"batch": 3, "length": 20})
    # latents 8 x 32; queries are the same for every sample; keys of 24 channels to 16
    assert flops["encoder.cross_attention.key"] == 2 * 3 * 20 * 24 * 16
    assert flops["encoder.cross_attention"] == 2 * 3 * 8 * 20 * (16 + 32)
