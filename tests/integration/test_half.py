"""fp16 and bf16 variants of every task: against eager float64, typed as engines want, kept right by rules."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from perceiver_deploy import build_engine, convert_bundle, export_model, load, validate_bundle
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.bundle.samples import load_sample
from perceiver_deploy.errors import BundleError, UsageError
from perceiver_deploy.evaluate.parity.verdicts import candidates_of, compare, judge
from perceiver_deploy.export.half.convert import convert_to_half, tensors_to_observe
from perceiver_deploy.pipeline.inspect import inspect_path
from perceiver_deploy.runtimes.checks.bounds import BOUNDS
from tests.helpers.factories import small_model
from tests.helpers.task_factories import MODELS

CASES = ("opt", "odd", "odd, fully masked row")
PRODUCTS = ("MatMul", "Gemm", "Conv")
QUICK = ("conv", "masked_lm", "entities", "multimodal_autoencoding")
"""One each with a convolution, with a mask, with two outputs, and with several inputs and outputs."""
SHIPPED = ("digits", "sentiment", "flow", "films-autoencoding")


def samples_of(bundle, names=CASES):
    samples = [load_sample(bundle.file(name)) for name in bundle.samples()]
    return [sample for sample in samples if sample.name in names]


def require_typed(bundle, variant, dtype):
    """Every product that is not kept is in half; every tensor has at most one cast to a type; no cast follows one."""
    for stage, file in bundle.variant(variant).files.items():
        onnx.checker.check_model(str(bundle.file(file)), full_check=True)
        model, kept = ir.load(bundle.file(file)), bundle.variant(variant).recipe.graph(stage).kept
        assert kept.keys() <= {node.name for node in model.graph}
        for node in model.graph:
            floats = {
                value.dtype for value in node.inputs if value is not None and value.dtype in (dtype, ir.DataType.FLOAT)
            }
            if node.op_type in PRODUCTS:
                assert floats == {ir.DataType.FLOAT if node.name in kept else dtype}, node.name
        halves = [node for node in model.graph if node.op_type == "Cast" and node.outputs[0].dtype == dtype]
        for node in halves:
            assert not any(use.node.op_type == "Cast" for value in node.outputs for use in value.uses()), node.name
        assert len(halves) == len({node.inputs[0] for node in halves})
        assert {value.dtype for value in (*model.graph.inputs, *model.graph.outputs)}.isdisjoint({dtype})


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS]
)
def test_fp16_of_every_task_is_within_its_bound_in_both_runtimes_at_two_shapes(name, copied_bundle):
    path = copied_bundle(name)
    result = convert_bundle(path, precision="fp16")
    bundle = Bundle.open(path)
    require_typed(bundle, "fp16", ir.DataType.FLOAT16)
    assert result.calibration == "golden samples"
    assert result.reports["full"].flops_share > 0.9
    (first, *_) = bundle.manifest.stages["full"].outputs
    assert (result.top1 is not None) == (first.name in ("logits", "label_logits"))
    verdicts = []
    for runtime in ("onnxruntime", "openvino"):
        with load(path, runtime=runtime, variant="fp16") as session:
            for sample in samples_of(bundle):
                verdicts += judge(candidates_of(session, "fp16", "fp16"), sample)
    assert {verdict.case for verdict in verdicts} >= {"opt", "odd"}
    assert [str(v.figures) for v in verdicts if not v.passed] == []
    assert {v.output for v in verdicts if v.figures.top1 is not None} <= {"logits", "entity_logits", "label_logits"}


@pytest.mark.parametrize("name", ["conv", "multimodal_autoencoding"])
def test_bf16_is_within_its_bound_in_openvino_and_not_offered_to_onnxruntime(name, copied_bundle):
    path = copied_bundle(name)
    convert_bundle(path, precision="bf16")
    bundle = Bundle.open(path)
    require_typed(bundle, "bf16", ir.DataType.BFLOAT16)
    assert bundle.variant("bf16").runtimes == ("openvino", "tensorrt-rtx")
    with pytest.raises(BundleError, match="not for onnxruntime"):
        load(path, runtime="onnxruntime", variant="bf16")
    with load(path, variant="bf16") as session:
        assert session.runtime == "openvino"
        verdicts = [v for s in samples_of(bundle) for v in judge(candidates_of(session, "bf16", "bf16"), s)]
    assert [str(v.figures) for v in verdicts if not v.passed] == []
    # else the graph would be one of float32
    assert max(verdict.figures.relative_l2 for verdict in verdicts) > BOUNDS["fp16"] / 10


def overflowing_model():
    """Values of one attention are 2^15 times as large, and what reads them divides by it: in float32 the same model."""
    model = small_model("fourier")
    layer, factor = model.encoder.self_attends[0], 2.0**15
    with torch.no_grad():
        for parameter in layer.value.parameters():
            parameter.mul_(factor)
        layer.output.weight.div_(factor)
    return model


def test_model_that_overflows_in_fp16_is_kept_right_by_its_ranges_and_wrong_without_them(tmp_path):
    path = tmp_path / "bundle"
    export_model(overflowing_model(), path)
    sample = samples_of(bundle := Bundle.open(path), ["opt"])[0]
    assert np.abs(sample.float64["logits"]).max() < 100
    convert_bundle(path, precision="fp16")
    kept = Bundle.open(path).variant("fp16").recipe.graph("full").kept
    seen = {name: reason for name, reason in kept.items() if reason.startswith("activation range: ")}
    assert all(name.startswith("encoder.self_attends.0") for name in seen)
    assert any("value" in name for name in seen)
    with load(path, variant="fp16") as session:
        figures = compare(session.run(sample.inputs)["logits"], sample.float64["logits"])
    assert figures.relative_l2 <= BOUNDS["fp16"]

    blind = ir.load(bundle.file("onnx/fp32.onnx"))
    convert_to_half(blind, "fp16", dict.fromkeys(tensors_to_observe(blind, "fp16"), (-1.0, 1.0)))
    with changed_bundle(path) as (staging, opened):
        ir.save(blind, staging.path("onnx/fp16.onnx"))
        staging.finish(opened.manifest)
    with load(path, runtime="onnxruntime", variant="fp16", allow_nonconforming=True) as session:
        assert session.conforms is False  # the exact outputs are those of the graph before
        assert compare(session.run(sample.inputs)["logits"], sample.float64["logits"]).non_finite > 0


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ["masked_lm", "multimodal_autoencoding"])
def test_strongly_typed_builder_takes_half_precision(name, precision, copied_bundle):
    pytest.importorskip("tensorrt_rtx", reason="building engines needs tensorrt-rtx-cu13")
    path = copied_bundle(name)
    convert_bundle(path, precision=precision)
    facts = build_engine(path, variant=precision).facts
    assert set(facts["gemm_dtypes"]) == {{"fp16": "Half", "bf16": "BFloat16"}[precision]}


@pytest.mark.full
@pytest.mark.parametrize("name", SHIPPED)
def test_strongly_typed_builder_takes_shipped_models_in_half_precision(name, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="building engines needs tensorrt-rtx-cu13")
    path = tmp_path / "bundle"
    export_model(name, path, gate_seconds=10)
    for precision in ("fp16", "bf16"):
        convert_bundle(path, precision=precision)
        assert any(
            dtype in ("Half", "BFloat16") for dtype in build_engine(path, variant=precision).facts["gemm_dtypes"]
        )


def test_raw_pictures_are_resized_and_rounded_in_float32(tmp_path):
    path = tmp_path / "bundle"
    export_model(small_model("fourier"), path, raw_inputs=True, gate_seconds=5)
    convert_bundle(path, precision="fp16")
    bundle = Bundle.open(path)
    require_typed(bundle, "fp16", ir.DataType.FLOAT16)
    model, kept = (
        ir.load(bundle.file("onnx/fp16.onnx")),
        bundle.variant("fp16").recipe.graph("full").kept,
    )
    assert all(node.name in kept for node in model.graph if node.op_type == "Round")
    result = validate_bundle(path, golden=True)
    assert [str(verdict) for verdict in result.verdicts if not verdict.passed] == []
    assert {verdict.variant for verdict in result.verdicts} == {"fp32", "fp16"}


def test_split_stages_are_converted_each_with_its_kept_nodes_and_validated(tmp_path):
    path = tmp_path / "bundle"
    export_model(small_model("text_classification"), path, split="only")
    result = convert_bundle(path, precision="fp16")
    assert result.reports.keys() == {"encoder", "decoder"}
    graphs = {graph.stage: graph for graph in inspect_path(path).graphs if graph.name == "fp16"}
    assert graphs.keys() == {"encoder", "decoder"}
    for stage, graph in graphs.items():
        assert graph.kept == result.reports[stage].kept != {}
        assert graph.flops == next(g.flops for g in inspect_path(path).graphs if (g.name, g.stage) == ("fp32", stage))
        assert [attention["fuses"]["tensorrt"] for attention in graph.attentions] != []
        assert all("only in fp16" not in attention["fuses"]["tensorrt"] for attention in graph.attentions)
    verdicts = validate_bundle(path, golden=True).verdicts
    assert {v.bound for v in verdicts if v.variant == "fp16"} == {BOUNDS["fp16"]}
    assert all(verdict.passed for verdict in verdicts)


def test_weights_outside_the_graph_stay_outside(tmp_path):
    from perceiver_deploy.export.options import GraphOptions

    path = tmp_path / "bundle"
    export_model(small_model("text_classification"), path, options=GraphOptions(external_above=0))
    convert_bundle(path, precision="fp16")
    bundle = Bundle.open(path)
    full, half = (bundle.file(f"onnx/{name}.onnx.data").stat().st_size for name in ("fp32", "fp16"))
    assert half < 0.6 * full
    with load(path, variant="fp16") as session:
        sample = samples_of(bundle, ["opt"])[0]
        figures = compare(session.run(sample.inputs)["logits"], sample.float64["logits"])
    assert figures.relative_l2 <= BOUNDS["fp16"]


def test_conversion_says_what_it_did_and_inspect_shows_why_nodes_were_kept(copied_bundle, tmp_path):
    from click.testing import CliRunner

    from perceiver_deploy.cli.main import main

    path = str(copied_bundle("masked_lm"))
    said = CliRunner().invoke(main, ["convert", path, "--precision", "fp16"])
    assert said.exit_code == 0, said.output
    assert "golden samples" in said.stdout
    assert re.search(r"nodes in float32: normalisation 11, overflow 3", " ".join(said.stdout.split()))
    shown = CliRunner().invoke(main, ["inspect", path])
    assert "normalisation 11, overflow 3" in " ".join(shown.stdout.split())
    document = json.loads(CliRunner().invoke(main, ["inspect", path, "--json"]).stdout)
    kept = next(graph["kept"] for graph in document["graphs"] if graph["name"] == "fp16")
    assert kept["encoder.cross_attention/Softmax"] == "normalisation: Softmax"
    assert CliRunner().invoke(main, ["convert", path, "--precision", "fp16"]).exit_code == 1
    assert CliRunner().invoke(main, ["convert", path, "--precision", "fp16", "--force"]).exit_code == 0


@pytest.mark.parametrize(
    ("options", "error", "part"),
    [
        ({"precision": "fp32"}, UsageError, "'fp32'"),
        ({"precision": "int8"}, UsageError, "--calibration"),
        ({"precision": "fp16", "method": "mse"}, UsageError, "about int8"),
        ({"precision": "fp16", "calibration": "digits"}, Exception, "task is masked_lm"),
    ],
)
def test_choice_that_does_not_fit_leaves_the_bundle_as_it_was(options, error, part, shared_bundle):
    with pytest.raises(error, match=part):
        convert_bundle(shared_bundle("masked_lm"), **options)


def test_bundle_for_runtimes_that_read_no_bf16_is_refused(copied_bundle):
    path = copied_bundle("fourier")
    with changed_bundle(path) as (staging, bundle):
        only = bundle.variant("fp32").model_copy(update={"runtimes": ("onnxruntime",)})
        staging.finish(bundle.manifest.model_copy(update={"variants": {"fp32": only}}))
    with pytest.raises(UsageError, match=r"onnxruntime cannot run a graph in bf16; openvino, tensorrt.*fp16"):
        convert_bundle(path, precision="bf16")


def test_bundle_without_golden_samples_asks_for_data(copied_bundle):
    path = copied_bundle("fourier")
    with changed_bundle(path) as (staging, bundle):
        for name in bundle.samples():
            staging.remove(name)
        staging.finish(bundle.manifest)
    with pytest.raises(BundleError, match=r"no golden samples.*--calibration"):
        convert_bundle(path, precision="fp16")
