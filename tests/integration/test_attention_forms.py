"""`export --attention`: bundles in each form, behind the gate, in the runtimes they are for."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from perceiver_deploy import convert_bundle, export_model, load
from perceiver_deploy.cli.main import main
from perceiver_deploy.errors import ExportError
from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.export.passes.grids import large_grids
from perceiver_deploy.export.passes.grids.by_row import KEYS, QUERIES
from perceiver_deploy.export.passes.grids.large_grids import LEFT
from perceiver_deploy.runtimes.checks.bounds import BOUNDS
from tests.helpers.factories import perturbed_model, relative_l2, small_model, text_inputs
from tests.helpers.task_factories import TASK_CONFIGS
from tests.unit.export.passes.test_algebra import one_head

REORDERED = 3e-6  # the same float32 products and sums in another order, through four layers


def invoke(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_a_bundle_for_onnxruntime_says_so_and_inspect_lists_its_attentions(tmp_path):
    path = tmp_path / "bundle"
    options = ("--attention", "onnxruntime", "--for", "onnxruntime")
    assert invoke("export", "breast-cancer", "-o", path, *options).exit_code == 0
    manifest = json.loads((path / "bundle.json").read_text())
    assert manifest["variants"]["fp32"]["for"] == ["onnxruntime"]
    graph = manifest["variants"]["fp32"]["recipe"]["graphs"]["full"]
    assert graph["rewrites"]["attentions for onnxruntime"] == graph["operators"]["com.microsoft.MultiHeadAttention"]
    listed = [json.loads(invoke("inspect", p, "--json").stdout) for p in (path, path / "onnx/fp32.onnx")]
    assert listed[0]["graphs"][0]["attentions"] == listed[1]["graphs"][0]["attentions"] == graph["attentions"]
    shown = " ".join(invoke("inspect", path).stdout.split())
    assert "onnxruntime does not fuse: with a mask it computes all scores (encoder.cross_attention)" in shown


def test_opset_23_attention_gives_the_same_numbers_in_both_cpu_runtimes(shared_bundle, tmp_path):
    path = tmp_path / "bundle"
    options = GraphOptions(attention="opset23", opset=23)
    result = export_model(small_model("masked_lm"), path, options=options, runtimes=("onnxruntime", "openvino"))
    assert result.graphs["full"].operators["Attention"] == 4
    inputs = text_inputs(3, 11, fully_masked_row=True)
    with load(shared_bundle("masked_lm"), runtime="onnxruntime") as session:
        expected = session.run(inputs)["logits"]
    for runtime in ("onnxruntime", "openvino"):
        with load(path, runtime=runtime) as session:
            assert relative_l2(session.run(inputs)["logits"], expected) < REORDERED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attention", "onnxruntime"), "openvino, tensorrt-rtx may not read"),
        (("--attention", "opset23"), "Give --opset 23"),
        (("--attention", "opset23", "--opset", "23"), "which tensorrt-rtx reads only in half precision"),
    ],
)
def test_a_form_that_a_runtime_or_opset_lacks_is_refused_before_any_work(options, message, tmp_path):
    result = invoke("export", "breast-cancer", "-o", tmp_path / "bundle", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "bundle").exists()


@pytest.fixture(scope="module")
def by_row_bundle(tmp_path_factory):
    """A small optical flow model whose grid counts as large, behind the gate, in fp32 and int8."""
    path = tmp_path_factory.mktemp("rows") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_grids, "LEAST_SCORES", 0)
        model = perturbed_model(one_head(TASK_CONFIGS["optical_flow"]))
        result = export_model(model, path, runtimes=("onnxruntime", "openvino"))
    assert result.verdicts
    assert (result.graphs["full"].rewrites[KEYS], result.graphs["full"].rewrites[QUERIES]) == (1, 1)
    patches = np.random.default_rng(0).standard_normal((32, 2, 27, 9, 12), np.float32)
    np.savez(path.parent / "patches.npz", patches=patches)
    return path, convert_bundle(path, precision="int8", calibration=str(path.parent / "patches.npz"))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_model_that_attends_by_row_gives_eagers_numbers_in_both_precisions(by_row_bundle, runtime):
    path, _ = by_row_bundle
    patches = np.random.default_rng(1).standard_normal((2, 2, 27, 11, 7), np.float32)
    with load(path, runtime="torch", variant="fp32") as session:
        expected = session.run({"patches": patches})["flow"]
    for variant, bound in (("fp32", REORDERED), ("int8", BOUNDS["int8"])):
        with load(path, runtime=runtime, variant=variant) as session:
            assert relative_l2(session.run({"patches": patches})["flow"], expected) < bound


def test_the_int8_report_says_that_a_loop_stays_float32_and_fp16_is_refused(by_row_bundle):
    path, converted = by_row_bundle
    report = converted.reports["full"]
    assert report.left == {"encoder.cross_attention/Loop": "a Loop, whose products stay float32"}
    assert report.quantized == report.weight_gemms
    assert 0.5 < report.flops_share < 1
    assert report.flops_share + report.left_flops_shares["encoder.cross_attention/Loop"] == pytest.approx(1)
    with pytest.raises(ExportError, match="with --attention portable"):
        convert_bundle(path, precision="fp16", calibration=str(path.parent / "patches.npz"))


def test_a_bundle_for_gpus_too_keeps_plain_operators_and_says_what_cpus_would_gain(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(large_grids, "LEAST_SCORES", 0)
    caplog.set_level("INFO")
    model = perturbed_model(one_head(TASK_CONFIGS["optical_flow"]))
    result = export_model(model, tmp_path / "bundle", validate=False)
    assert result.graphs["full"].rewrites[LEFT] == 2
    assert "Loop" not in result.graphs["full"].operators
    assert "2 attentions are over a large grid" in caplog.text


@pytest.mark.parametrize(
    ("checkpoint", "options", "message"),
    [
        ("digits", ("--for", "openvino"), "No attention of this model is over a grid"),
        ("flow", (), "for processors: tensorrt-rtx would run"),
        ("flow", ("--for", "openvino", "--no-reassociate"), "Leave --no-reassociate out"),
    ],
)
def test_rows_where_nothing_is_to_be_won_are_refused(checkpoint, options, message, tmp_path):
    result = invoke("export", checkpoint, "-o", tmp_path / "bundle", "--attention", "rows", *options)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "bundle").exists()
