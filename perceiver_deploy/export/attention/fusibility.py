"""The attentions of a graph, and which engine computes each as one kernel, without all scores in memory.

onnxruntime (contrib_ops/cpu/bert/multihead_attention.cc, 1.32): `MultiHeadAttention` without mask, of any head sizes,
on the CPU in float32. OpenVINO (2026.4): MatMul, Add, Softmax, MatMul became one `Subgraph` at every head size, mask or
not, by its runtime graph. TensorRT and TensorRT-RTX: half precision, one head size of a multiple of 8 up to 256 for
query, key and value; any additive mask.
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/transformers-fused-attention.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from perceiver_deploy.bundle.manifest import Axis, RuntimeName, opt_sizes
from perceiver_deploy.errors import UsageError
from perceiver_deploy.export.attention.match import Attention, find_attentions
from perceiver_deploy.export.graph.flops import ATTENTION_OPERATORS, shape_at, turns
from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.graph.values import sole_user
from perceiver_deploy.export.options import BY_ROW, BY_ROW_OPSET, FUSED, GraphOptions
from perceiver_deploy.runtimes.catalogue import CPU_RUNTIMES

ATTENTION_OPSET = 23
"""The first opset that has `Attention`."""
HEAD_MULTIPLE, HEAD_MOST = 8, 256
"""Channels of a head in TensorRT's fused kernels: a multiple of the first, up to the second."""

PLAIN = "plain operators"
LOOP = "a Loop over rows"
ADDED = "plain operators, rows and columns apart"
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class AttentionInfo:
    """One attention: `form` is its operator or "plain operators"; sizes are for one sample, axes at their `opt` sizes.

    `qk_size` and `v_size` are channels of one head. `fuses` maps an engine to "fused" or the reason why not. `count` is
    how many times a graph has it (blocks that share weights).
    """

    module: str
    form: str
    heads: int
    qk_size: int
    v_size: int
    queries: int
    keys: int
    mask: bool
    flops: int
    fuses: dict[str, str]
    count: int = 1


def choose_form(options: GraphOptions, runtimes: Sequence[RuntimeName]) -> GraphOptions:
    """The options with `auto` replaced: large grids by row where only CPUs run the graph, else plain operators."""
    if options.attention != "auto":
        return options
    if not options.reassociate or options.opset < BY_ROW_OPSET or not set(runtimes) <= set(CPU_RUNTIMES):
        return replace(options, attention="portable")
    return replace(options, attention="all-rows" if set(runtimes) == {"onnxruntime"} else "rows")


def require_suited(options: GraphOptions, runtimes: Sequence[RuntimeName]) -> None:
    """Check the form of the attentions against the runtimes and the opset.

    Raises:
        UsageError: onnxruntime's operator for another runtime, or `Attention` in an opset that lacks it or for
            TensorRT.
    """
    others = [runtime for runtime in runtimes if runtime != "onnxruntime"]
    if options.attention == "onnxruntime" and others:
        raise UsageError(
            f"--attention onnxruntime writes an operator of onnxruntime, tried on its CPU provider only, which "
            f"{', '.join(others)} may not read. Give --for onnxruntime and no other, or leave --attention out."
        )
    if options.attention == "opset23" and options.opset < ATTENTION_OPSET:
        raise UsageError(
            f"--attention opset23 writes the operator Attention, which opset {options.opset} does not have. "
            f"Give --opset {ATTENTION_OPSET}, or leave --attention out."
        )
    if options.attention == "opset23" and (refusing := [runtime for runtime in runtimes if "tensorrt" in runtime]):
        raise UsageError(
            f"--attention opset23 writes the operator Attention, which {', '.join(refusing)} reads only in half "
            "precision and at head sizes that it has a kernel for, while the export is in float32. "
            "Give --for onnxruntime or --for openvino, or leave --attention out."
        )
    if options.attention in BY_ROW and (gpus := [each for each in runtimes if each not in CPU_RUNTIMES]):
        raise UsageError(
            f"--attention {options.attention} writes loops over rows, for processors: {', '.join(gpus)} would run "
            "hundreds of small steps one after the other. Give --for onnxruntime or --for openvino, or leave "
            "--attention out."
        )
    if options.attention in BY_ROW and not options.reassociate:
        raise UsageError(
            f"--attention {options.attention} builds on reassociated products. Leave --no-reassociate out."
        )


def list_attentions(model: ir.Model, axes: Mapping[str, Axis]) -> list[AttentionInfo]:
    """The attentions of a graph in its order, equal ones of one module once, at their first place.

    Raises:
        ExportError: a shape is not known, or names an axis that is not given.
    """
    sizes = opt_sizes(axes) | {"batch": 1}
    plain = {attention.softmax: attention for attention in find_attentions(model)}
    found = []
    for node in model.graph:
        if node in plain:
            found.append(_plain(plain[node], sizes))
        elif node.op_type in ATTENTION_OPERATORS:
            found.append(_operator(node, sizes))
        elif (by_row := _by_row(node, sizes)) is not None:
            found.append(by_row)
    return [replace(info, count=found.count(info)) for at, info in enumerate(found) if found.index(info) == at]


def _plain(attention: Attention, sizes: Mapping[str, int]) -> AttentionInfo:
    query, result = attention.scores.inputs[0], attention.weighted.outputs[0]
    assert query is not None
    _, heads, queries, keys = shape_at(attention.scores.outputs[0], sizes)
    size, v_size = shape_at(query, sizes)[-1], shape_at(result, sizes)[-1]
    return _info(attention.module, PLAIN, heads, (size, v_size), (queries, keys), attention.mask is not None, result)


def _by_row(node: ir.Node, sizes: Mapping[str, int]) -> AttentionInfo | None:
    """What `passes.grids` writes, at its Loop or its Softmax."""
    if node.op_type == "Loop":
        return _loop(node, sizes)
    return _rows_added(node, sizes) if node.op_type == "Softmax" else None


def _loop(node: ir.Node, sizes: Mapping[str, int]) -> AttentionInfo | None:
    """A Loop over the rows of a grid that has the keys, where it carries sums, or the queries."""
    products = [each for each in node.attributes["body"].as_graph() if each.op_type == "MatMul"]
    if len(products) < 2:
        return None
    scores, weighted = products[0], products[-1]
    (queries, keys), rows = shape_at(scores.outputs[0], sizes)[-2:], turns(node, sizes)
    tokens = (queries, keys * rows) if len(node.inputs) > 2 else (queries * rows, keys)
    head_sizes = (_summed_channels(scores, sizes), shape_at(weighted.outputs[0], sizes)[-1])
    return _info(module_of(node), LOOP, 1, head_sizes, tokens, mask=False, typed=weighted.outputs[0])


def _rows_added(softmax: ir.Node, sizes: Mapping[str, int]) -> AttentionInfo | None:
    """An attention [batch, height, width, keys] with the scores of rows and columns added."""
    weighted, scores = sole_user(softmax.outputs[0]), _before(softmax)
    for operator in ("Add", "Mul", "Add", "Add"):  # of the bias, by the inverse deviation, of the columns, of the rows
        if scores is None or scores.op_type != operator:
            return None
        scores = _before(scores)
    if weighted is None or scores is None or {weighted.op_type, scores.op_type} != {"MatMul"}:
        return None
    _, height, width, keys = shape_at(scores.outputs[0], sizes)
    result = weighted.outputs[0]
    head_sizes = (_summed_channels(scores, sizes), shape_at(result, sizes)[-1])
    return _info(module_of(softmax), ADDED, 1, head_sizes, (height * width, keys), mask=False, typed=result)


def _before(node: ir.Node) -> ir.Node | None:
    return node.inputs[0].producer() if node.inputs[0] is not None else None


def _summed_channels(product: ir.Node, sizes: Mapping[str, int]) -> int:
    assert product.inputs[0] is not None
    return shape_at(product.inputs[0], sizes)[-1]


def _operator(node: ir.Node, sizes: Mapping[str, int]) -> AttentionInfo:
    query, key, value = node.inputs[:3]
    assert query is not None
    assert key is not None
    assert value is not None
    heads = node.attributes.get_int("num_heads", 0) or node.attributes.get_int("q_num_heads", 1)
    _, queries, channels = shape_at(query, sizes)
    _, keys, v_channels = shape_at(value, sizes)
    mask = any(operand is not None for operand in node.inputs[3:])
    of_head = (channels // heads, v_channels // heads)
    return _info(module_of(node), node.op_type, heads, of_head, (queries, keys), mask, value)


def _info(
    module: str,
    form: str,
    heads: int,
    head_sizes: tuple[int, int],
    tokens: tuple[int, int],
    mask: bool,
    typed: ir.Value,
) -> AttentionInfo:
    fuses = {
        "onnxruntime": _onnxruntime(form, mask=mask),
        "openvino": FUSED,
        "tensorrt": _tensorrt(form, head_sizes, typed.dtype),
    }
    flops = 2 * heads * tokens[0] * tokens[1] * sum(head_sizes)
    return AttentionInfo(module, form, heads, *head_sizes, *tokens, mask, flops, fuses)


def _onnxruntime(form: str, *, mask: bool) -> str:
    if form == LOOP or (form == "MultiHeadAttention" and not mask):
        return FUSED
    if form == ADDED:
        return "it computes all scores; export with --attention all-rows"
    if mask:
        return "with a mask it computes all scores"
    return "it computes all scores; export with --attention onnxruntime" if form == PLAIN else "it computes all scores"


def _tensorrt(form: str, head_sizes: tuple[int, int], dtype: ir.DataType | None) -> str:
    """Rules for TensorRT and TensorRT-RTX; the operator of onnxruntime is refused by both."""
    if form == "MultiHeadAttention":
        return "an operator of onnxruntime"
    if form in (LOOP, ADDED):
        return "written for processors"
    size, v_size = head_sizes
    reasons = []
    if size != v_size:
        reasons.append(f"head sizes {size} and {v_size} differ")
    if max(head_sizes) > HEAD_MOST:
        reasons.append(f"head size {max(head_sizes)} is above {HEAD_MOST}")
    if any(number % HEAD_MULTIPLE for number in head_sizes):
        reasons.append(f"head size {size if size % HEAD_MULTIPLE else v_size} is not a multiple of 8")
    if dtype not in _HALF:
        reasons.append("only in fp16 or bf16")
    return "; ".join(reasons) or FUSED
