"""INT8 conversion of the shipped model and of every kind: what is quantised, what is kept, what is refused."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from perceiver_deploy import build_engine, convert_bundle, export_model, load
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.bundle.manifest import Signature
from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.data.metrics import TOP1, measure
from perceiver_deploy.errors import BundleError, ExportError, InputError, UsageError
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.export.calibration.ranges import read_ranges
from perceiver_deploy.export.int8.quantize import quantize_int8
from perceiver_deploy.export.int8.report import count_quantized
from tests.helpers.factories import KINDS

ROOT = Path(__file__).parents[2]
CONVOLUTIONS = {"conv": "input_adapter.stem.batch_norm/Conv", "learned": "input_adapter.stem/Conv"}


@pytest.fixture(scope="module")
def digits(shared_bundle):
    """The shipped model with both variants. Read only."""
    return shared_bundle("digits", "int8")


def calibration_file(bundle, path):
    """Random inputs that fit a bundle, as the .npz that a user would bring."""
    manifest = Bundle.open(bundle).manifest
    signature = Signature(task=manifest.task, axes=manifest.axes, stage=manifest.stages["full"])
    sizes = {name: axis.opt for name, axis in manifest.axes.items()} | {"batch": 24}
    np.savez(path, **make_inputs(signature, Case("calibration", sizes), manifest.preprocessing))
    return path


def test_every_weight_gemm_of_the_shipped_model_is_quantised_symmetrically(digits):
    bundle = Bundle.open(digits)
    model = ir.load(bundle.file("onnx/int8.onnx"))
    report = count_quantized(model)
    gemms = ir.load(bundle.file("onnx/fp32.onnx")).graph
    weights = [
        n for n in gemms if n.op_type in ("MatMul", "Gemm") and any(value.is_initializer() for value in n.inputs[:2])
    ]
    assert report.quantized == report.weight_gemms == len(weights) == 33
    assert bundle.manifest.variants["int8"].recipe.model_dump()["graphs"]["full"]["quantized"] == 33
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero_point = node.inputs[2].const_value.numpy()
            assert zero_point.dtype == np.int8
            assert not zero_point.any()


def test_weights_are_quantised_per_output_channel(digits):
    model = ir.load(Bundle.open(digits).file("onnx/int8.onnx"))
    node = next(n for n in model.graph if n.name == "decoder.projection/MatMul")
    dequantize = node.inputs[1].producer()
    assert dequantize.inputs[0].const_value.dtype == ir.DataType.INT8
    assert dequantize.inputs[1].const_value.shape == (10,)


def test_int8_by_the_default_command_keeps_the_stated_bounds_in_both_runtimes(digits, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    program, data = importlib.import_module("accuracy"), load_dataset("digits")
    eager = program.run(digits, "torch", "fp32", data)
    for runtime in ("onnxruntime", "openvino"):
        found = program.candidate(digits, runtime, "int8", data, eager)
        assert program.failures(found) == []
        assert found["outputs"]["logits"]["sqnr_db"] < 60  # of float32 it is 126


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in ("conv", "masked_lm") else pytest.mark.slow) for kind in KINDS]
)
def test_every_kind_of_model_converts_runs_at_another_shape_and_builds(kind, copied_bundle, tmp_path):
    bundle = copied_bundle(kind)
    result = convert_bundle(bundle, precision="int8", calibration=calibration_file(bundle, tmp_path / "data.npz"))
    report = result.reports["full"]
    assert report.quantized == report.weight_gemms > 0
    left = [CONVOLUTIONS[kind]] if kind in CONVOLUTIONS else []
    assert report.left == dict.fromkeys(left, "a convolution; only MatMul and Gemm are quantised")
    assert list(report.left_flops_shares) == left
    assert report.flops_share + sum(report.left_flops_shares.values()) == pytest.approx(1)
    manifest = Bundle.open(bundle).manifest
    signature = Signature(task=manifest.task, axes=manifest.axes, stage=manifest.stages["full"])
    sizes = {name: max(axis.min, axis.opt - 3) for name, axis in manifest.axes.items()} | {"batch": 2}
    inputs = make_inputs(signature, Case("other", sizes), manifest.preprocessing, seed=1)
    with load(bundle) as full, load(bundle, variant="int8") as int8:
        reference, found = full.run(inputs)["logits"], int8.run(inputs)["logits"]
    # INT8 on random weights and on noise outside its ranges; unrelated values are off by 1.4
    assert 0 < np.linalg.norm(found - reference) / np.linalg.norm(reference) < 1
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    facts = build_engine(bundle, variant="int8").facts
    assert any("Int8" in dtypes for dtypes in facts["gemm_dtypes"])


def test_conversion_of_an_int8_variant_again_needs_force_and_drops_its_engines(digits, tmp_path):
    bundle = tmp_path / "copy.bundle"
    shutil.copytree(digits, bundle)
    with pytest.raises(BundleError, match="--force"):
        convert_bundle(bundle, precision="int8", calibration="digits")
    before = Bundle.open(bundle).manifest.files["onnx/int8.onnx"]
    convert_bundle(bundle, precision="int8", calibration="digits", samples=8, force=True)
    after = Bundle.open(bundle)
    assert after.manifest.files["onnx/int8.onnx"] != before
    assert after.manifest.variants["int8"].recipe.model_dump()["calibration"]["samples"] == 8


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((4, 3, 8, 8), np.float32)}, "no input 'images'"),
        ({"pixel_values": np.zeros((4, 3, 8, 8))}, "float64; expected float32"),
        ({"pixel_values": np.full((4, 3, 8, 8), np.nan, np.float32)}, "not finite"),
        ({"pixel_values": np.zeros((0, 3, 8, 8), np.float32)}, "at least 1"),
    ],
)
def test_calibration_data_that_does_not_fit_is_refused_and_the_bundle_is_as_before(digits, tmp_path, arrays, message):
    bundle = tmp_path / "copy.bundle"
    shutil.copytree(digits, bundle)
    np.savez(tmp_path / "data.npz", **arrays)
    before = (bundle / "bundle.json").read_bytes()
    with pytest.raises(InputError, match=message):
        convert_bundle(bundle, precision="int8", calibration=tmp_path / "data.npz", force=True)
    assert (bundle / "bundle.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.bundle", "data.npz"]


def test_data_set_of_another_task_is_refused(copied_bundle):
    with pytest.raises(InputError, match="'digits' is for image_classification; the bundle's task is masked_lm"):
        convert_bundle(copied_bundle("masked_lm"), precision="int8", calibration="digits")


def test_a_graph_without_weight_gemms_is_an_error(tmp_path):
    import onnx

    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "relu.onnx")
    with pytest.raises(ExportError, match="None of the 0 weight GEMMs"):
        quantize_int8(tmp_path / "relu.onnx", tmp_path / "out.onnx", {})


def test_ranges_are_kept_in_the_bundle_and_used_again_only_where_graph_data_and_method_match(digits, tmp_path, caplog):
    bundle = tmp_path / "copy.bundle"
    shutil.copytree(digits, bundle)
    caplog.set_level("INFO", logger="perceiver_deploy")
    result = convert_bundle(bundle, calibration="digits", target="cpu")
    assert result.variant == "int8-cpu"
    assert "calibration/int8.json is of the same graph, data and method and is used again" in caplog.text
    caplog.clear()
    convert_bundle(bundle, calibration="digits", method="percentile", force=True)
    assert "used again" not in caplog.text
    for name in ("int8", "int8-cpu"):
        assert f"calibration/{name}.json is of another method (minmax; this one: percentile) and is not used" in (
            caplog.text
        )
    opened = Bundle.open(bundle)
    kept = {name: read_ranges(opened.file(f"calibration/{name}.json")) for name in ("int8", "int8-cpu")}
    assert {name: ranges.method for name, ranges in kept.items()} == {"int8": "percentile", "int8-cpu": "minmax"}
    for name, before in kept["int8-cpu"].tensors.items():
        assert before.threshold == max(-before.low, before.high) >= kept["int8"].tensors[name].threshold > 0


def test_kept_ranges_of_another_version_are_measured_again_with_a_warning(digits, tmp_path, caplog):
    bundle = tmp_path / "copy.bundle"
    shutil.copytree(digits, bundle)
    with changed_bundle(bundle) as (staging, opened):
        old = json.loads(opened.file("calibration/int8.json").read_text())
        for found in old["tensors"].values():
            del found["lost"]
        staging.path("calibration/int8.json").write_text(json.dumps(old))
        staging.finish(opened.manifest)
    convert_bundle(bundle, calibration="digits", force=True)
    assert "does not hold ranges" in caplog.text
    assert all(0 <= found.lost <= 1 for found in read_ranges(bundle / "calibration/int8.json").tensors.values())


def test_given_ranges_give_the_same_graph_and_are_refused_for_other_data_method_or_graph(digits, tmp_path):
    bundle = tmp_path / "copy.bundle"
    shutil.copytree(digits, bundle)
    ranges = [digits / "calibration/int8.json"]
    convert_bundle(bundle, calibration="digits", ranges=ranges, force=True)
    assert (bundle / "onnx/int8.onnx").read_bytes() == (digits / "onnx/int8.onnx").read_bytes()
    for options, message in [({"samples": 64}, "other data"), ({"method": "mse"}, "another method")]:
        with pytest.raises(InputError, match=message):
            convert_bundle(bundle, calibration="digits", ranges=ranges, force=True, **options)
    document = json.loads(ranges[0].read_text(encoding="utf-8"))
    other, no_ranges = tmp_path / "other.json", tmp_path / "none.json"
    other.write_text(json.dumps(document | {"graph_sha256": "0" * 64}), encoding="utf-8")
    no_ranges.write_text("{}", encoding="utf-8")
    binary, fewer = tmp_path / "binary.json", tmp_path / "fewer.json"
    binary.write_bytes(b"\x89PNG\r\n\xff\xfe\x00")
    missing = next(iter(document["tensors"]))
    fewer.write_text(json.dumps(document | {"tensors": {}}), encoding="utf-8")
    with pytest.raises(InputError, match="another graph"):
        convert_bundle(bundle, calibration="digits", ranges=[other], force=True)
    with pytest.raises(InputError, match="does not hold ranges"):
        convert_bundle(bundle, calibration="digits", ranges=[no_ranges], force=True)
    with pytest.raises(InputError, match=r"binary.json cannot be read"):
        convert_bundle(bundle, calibration="digits", ranges=[binary], force=True)
    lacking = rf"fewer tensors .*{missing}.* have no range"
    with pytest.raises(InputError, match=rf"{lacking}.*leave --ranges out .*: perceiver-deploy convert {bundle} --pre"):
        convert_bundle(bundle, calibration="digits", ranges=[fewer], force=True)


def test_cpu_variant_is_for_the_cpu_only_and_as_accurate_in_both_runtimes(digits, tmp_path):
    bundle = tmp_path / "copy.bundle"
    shutil.copytree(digits, bundle)
    convert_bundle(bundle, calibration="digits", target="cpu", equalised=True)
    variant = Bundle.open(bundle).manifest.variants["int8-cpu"]
    assert variant.runtimes == ("onnxruntime", "openvino")
    assert variant.recipe.model_dump()["equalised"]
    data = load_dataset("digits").test
    for runtime in variant.runtimes:
        with load(bundle, runtime=runtime, variant="int8-cpu") as session:
            (top1,) = measure(session.run(data.inputs), data, [TOP1])
        assert top1.value >= 0.985  # fp32 has 99.11 %; three of 450 rows
    with pytest.raises(BundleError, match="tensorrt-rtx"):
        build_engine(bundle, variant="int8-cpu")


def test_a_target_that_the_bundle_is_not_for_is_refused(tmp_path):
    export_model("digits", tmp_path / "ort.bundle", runtimes=["onnxruntime"], validate=False)
    with pytest.raises(UsageError, match="for onnxruntime, none of which --for tensorrt means"):
        convert_bundle(tmp_path / "ort.bundle", calibration="digits", target="tensorrt")


def test_recipe_of_an_int8_variant_describes_its_graph_as_that_of_fp32_does(digits):
    fp32, int8 = (
        Bundle.open(digits).manifest.variants[name].recipe.graph("full").model_dump() for name in ("fp32", "int8")
    )
    assert int8["flops"] == fp32["flops"]
    assert int8["rewrites"] == fp32["rewrites"]
    assert [a["module"] for a in int8["attentions"]] == [a["module"] for a in fp32["attentions"]]
    assert int8["operators"]["DequantizeLinear"] > 33
    assert int8["gemm_flops_share"] == int8["flops_share"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pixels: pixels[:1], "gives 1 calibration sample; expected at least 2"),
        (lambda pixels: np.where(np.arange(len(pixels))[:, None, None, None] == 5, np.nan, pixels), "first in row 5"),
    ],
)
def test_too_few_samples_and_rows_that_are_not_finite_are_named(digits, tmp_path, change, message):
    pixels = load_dataset("digits").train.inputs["pixel_values"][:40]
    np.savez(tmp_path / "data.npz", pixel_values=change(pixels).astype(np.float32))
    bundle = tmp_path / "copy.bundle"
    shutil.copytree(digits, bundle)
    with pytest.raises(InputError, match=message):
        convert_bundle(bundle, calibration=tmp_path / "data.npz", force=True)


def test_data_that_never_use_the_mask_are_warned_of(copied_bundle, tmp_path, caplog):
    bundle = copied_bundle("text_classification")
    convert_bundle(bundle, calibration=calibration_file(bundle, tmp_path / "data.npz"))
    assert "No calibration sample uses the mask (attention_mask is 1 everywhere)" in caplog.text


def test_a_killed_conversion_leaves_the_bundle_as_it_was(digits, tmp_path):
    bundle = tmp_path / "copy.bundle"
    shutil.copytree(digits, bundle)
    with pytest.raises(KeyboardInterrupt), changed_bundle(bundle) as (staging, _):
        staging.path("onnx/int8.onnx").write_bytes(b"half")
        raise KeyboardInterrupt
    opened = Bundle.open(bundle)
    assert all(opened.file(name).exists() for name in opened.manifest.files)
