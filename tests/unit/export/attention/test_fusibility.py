"""The table of attentions: what is counted, and who fuses them."""

import onnx
import onnx_ir as ir
import pytest

from perceiver_deploy.bundle.manifest import Axis
from perceiver_deploy.errors import UsageError
from perceiver_deploy.export.attention.fusibility import choose_form, list_attentions, require_suited
from perceiver_deploy.export.graph.flops import count_flops
from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.export.passes.attentions.multi_head_attention import FuseForOnnxruntime
from perceiver_deploy.export.trace import trace_model
from tests.helpers.factories import small_model
from tests.helpers.graph_passes import fired


@pytest.fixture(scope="module")
def graphs():
    """One text model in the plain form and in onnxruntime's."""
    model = small_model("masked_lm")
    plain = trace_model(model, model.signature, GraphOptions(reassociate=False))
    fused = ir.serde.deserialize_model(ir.serde.serialize_model(plain))
    assert fired(FuseForOnnxruntime(), fused) == 3  # two runs of the block, and the decoder
    return model.signature, [plain, fused]


def test_attentions_are_listed_once_with_sizes_masks_and_reasons(graphs):
    signature, (plain, _) = graphs
    encoder, latents, decoder = list_attentions(plain, signature.axes)
    assert encoder.module == "encoder.cross_attention"
    assert (encoder.heads, encoder.qk_size, encoder.v_size) == (2, 8, 16)
    assert (encoder.queries, encoder.keys, encoder.mask) == (8, 32, True)
    assert encoder.flops == 2 * 2 * 8 * 32 * (8 + 16)
    assert latents.count == 2  # the block is run twice
    assert (decoder.queries, decoder.keys, decoder.mask) == (32, 8, False)
    assert encoder.fuses["openvino"] == "fused"
    assert encoder.fuses["tensorrt"] == "head sizes 8 and 16 differ; only in fp16 or bf16"
    assert "mask" in encoder.fuses["onnxruntime"]
    assert "--attention onnxruntime" in decoder.fuses["onnxruntime"]


def test_a_half_precision_attention_of_one_head_size_is_fused_by_tensorrt(graphs):
    signature, (plain, _) = graphs
    halved = ir.serde.deserialize_model(ir.serde.serialize_model(plain))
    for node in halved.graph:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.type = ir.TensorType(ir.DataType.FLOAT16)
    _, latents, decoder = list_attentions(halved, signature.axes)
    assert latents.fuses["tensorrt"] == "fused"
    assert decoder.fuses["tensorrt"] == "head sizes 8 and 12 differ; head size 12 is not a multiple of 8"


def test_the_fused_form_is_listed_alike_and_counts_as_many_operations(graphs):
    signature, (plain, fused) = graphs
    sizes = {"batch": 1, "length": 32}
    assert sum(count_flops(fused, sizes).values()) == sum(count_flops(plain, sizes).values())
    for before, after in zip(*(list_attentions(graph, signature.axes) for graph in (plain, fused)), strict=True):
        assert (before.module, before.heads, before.queries, before.keys, before.flops, before.count) == (
            after.module,
            after.heads,
            after.queries,
            after.keys,
            after.flops,
            after.count,
        )
        assert (after.form, after.fuses["onnxruntime"]) == (
            ("plain operators", "with a mask it computes all scores")
            if before.mask
            else ("MultiHeadAttention", "fused")
        )


def test_the_operator_of_onnxruntime_is_refused_for_other_runtimes():
    require_suited(GraphOptions(attention="onnxruntime"), ["onnxruntime"])
    with pytest.raises(UsageError, match="openvino may not read"):
        require_suited(GraphOptions(attention="onnxruntime"), ["onnxruntime", "openvino"])


def test_attention_of_opset_23_is_refused_below_that_opset():
    require_suited(GraphOptions(attention="opset23", opset=23), ["openvino"])
    with pytest.raises(UsageError, match="--opset 23"):
        require_suited(GraphOptions(attention="opset23"), ["openvino"])


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt"])
def test_attention_of_opset_23_is_refused_for_tensorrt(runtime):
    with pytest.raises(UsageError, match=f"which {runtime} reads only in half precision.*--for openvino"):
        require_suited(GraphOptions(attention="opset23", opset=23), ["openvino", runtime])


@pytest.mark.parametrize(
    ("options", "runtimes", "form"),
    [
        ({}, ["onnxruntime", "openvino"], "rows"),
        ({}, ["openvino"], "rows"),
        ({}, ["onnxruntime"], "all-rows"),
        ({}, ["onnxruntime", "openvino", "tensorrt-rtx"], "portable"),
        ({"opset": 17}, ["openvino"], "portable"),
        ({"reassociate": False}, ["openvino"], "portable"),
        ({"attention": "portable"}, ["openvino"], "portable"),
        ({"attention": "opset23", "opset": 23}, ["openvino"], "opset23"),
    ],
)
def test_large_grids_are_attended_by_row_where_only_cpus_run_the_graph(options, runtimes, form):
    assert choose_form(GraphOptions(**options), runtimes).attention == form


def test_a_softmax_and_a_loop_of_another_model_are_no_attentions():
    model = ir.from_proto(
        onnx.parser.parse_model(
            """
            <ir_version: 9, opset_import: ["" : 20]>
            other (float[batch, 4] x, int64 count, bool go) => (float[batch, 4] y, float[batch, 4] z) {
                y = Softmax(x)
                z = Loop(count, go, x) <body = turn (int64 i, bool c, float[batch, 4] s)
                    => (bool c2, float[batch, 4] t) { c2 = Identity(c) t = Add(s, s) }>
            }
            """
        )
    )
    assert list_attentions(model, {"batch": Axis(opt=1)}) == []
    assert count_flops(model, {"batch": 1}) == {}
