"""What each module takes: operations, weights and activations, against sums by hand."""

from dataclasses import asdict

import numpy as np
import onnx_ir as ir
import pytest

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Axis, opt_sizes
from perceiver_deploy.export.graph.costs import ModuleCost, cost_by_module
from perceiver_deploy.export.graph.flops import count_flops
from tests.helpers.task_factories import MODELS, named_model

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def value(name, *shape):
    return ir.Value(name=name, shape=ir.Shape(shape), type=FLOAT)


def stored(name, array):
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)


def test_operations_weights_and_activations_of_a_layer_are_summed_over_its_nodes():
    x, h, s, y = value("x", "batch", 2, 3), value("h", "batch", 2, 4), value("s", "batch", 2, 4), value("y", "batch", 8)
    weight, bias = stored("w", np.ones((3, 4), np.float32)), stored("b", np.ones(4, np.float32))
    shape = stored("shape", np.array([0, 8]))
    nodes = [
        ir.node("MatMul", [x, weight], outputs=[h], name="encoder.self_attends.1.query/MatMul"),
        ir.node("Add", [h, bias], outputs=[s], name="encoder.self_attends.1.mlp.0/Add"),
        ir.node("Reshape", [s, shape], outputs=[y], name="graph/Reshape"),
    ]
    graph = ir.Graph([x], [y], nodes=nodes, initializers=[weight, bias, shape], opset_imports={"": 20}, name="g")
    activations = 4 * 5 * 2 * ((3 + 4) + (4 + 4))  # what MatMul and Add read and write, at batch 5
    assert cost_by_module(ir.Model(graph, ir_version=10), {"batch": Axis(opt=5)}) == [
        ModuleCost("encoder.self_attends.1", 2 * 5 * 2 * 4 * 3, 4 * (3 * 4 + 4), activations),
        ModuleCost("graph", 0, 16, 0),  # a Reshape moves nothing
    ]


QUICK = ("fourier", "masked_lm", "optical_flow", "tokens")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS]
)
def test_modules_add_up_to_the_graph_and_a_layer_that_blocks_share_is_one(name, shared_bundle):
    manifest = Bundle.open(shared_bundle(name)).manifest
    graph, encoder = ir.load(shared_bundle(name) / "onnx/fp32.onnx"), named_model(name).config.encoder
    costs = cost_by_module(graph, manifest.axes)
    assert manifest.variants["fp32"].recipe.graph("full").model_dump(mode="json")["modules"] == [
        asdict(cost) for cost in costs
    ]
    assert sum(cost.flops for cost in costs) == sum(count_flops(graph, opt_sizes(manifest.axes)).values())
    weights = [value.const_value for value in graph.graph.initializers.values()]
    assert sum(cost.weight_bytes for cost in costs) == sum(tensor.nbytes for tensor in weights)
    found = {cost.module: cost for cost in costs}
    assert len(found) == len(costs)
    layers = [module for module in found if module.startswith("encoder.self_attends.")]
    assert layers == [f"encoder.self_attends.{index}" for index in range(encoder.num_self_attends_per_block)]
    for layer in layers:
        # reading and writing the latents once is the least that any layer does
        latents = 4 * encoder.num_latents * encoder.d_latents
        assert found[layer].activation_bytes > 2 * latents * encoder.num_blocks
