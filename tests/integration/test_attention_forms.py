"""`export --attention`: bundles in each form, behind the gate, in the runtimes they are for."""

import json

import pytest
from click.testing import CliRunner

from perceiver_deploy import export_model, load
from perceiver_deploy.cli.main import main
from perceiver_deploy.export.options import GraphOptions
from tests.factories import relative_l2, small_model, text_inputs

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
