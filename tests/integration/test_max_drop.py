"""`convert --max-drop` on real graphs: what is written keeps the contract, and where it cannot, nothing is written."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner

from perceiver_deploy import convert_bundle, load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.cli.main import main
from perceiver_deploy.errors import BoundError, InputError, UsageError
from perceiver_deploy.evaluate.accuracy import agreement
from perceiver_deploy.pipeline.convert import trials as contract_trials
from tests.helpers.factories import directory_content, image_inputs

ROWS = 60


BAD_LABELS = {
    "no_class": np.full(ROWS, 99),
    "no_number": np.full(ROWS, "cat"),
    "too_many": np.zeros((ROWS, 2), int),
}


@pytest.fixture(autouse=True)
def one_runtime(monkeypatch, tmp_path):
    """Judging in onnxruntime alone is half the time, and a search leaves nothing in the user's cache."""
    monkeypatch.setattr(contract_trials, "installed_runtimes", lambda: ["onnxruntime"])
    monkeypatch.setenv("PERCEIVER_DEPLOY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Noise to calibrate on, and other noise, with labels and without."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("calibration", "copy"):
        np.savez(folder / f"{name}.npz", **image_inputs(40, 10, 12, seed=1))
    held_out = image_inputs(ROWS, 10, 12, seed=2)
    np.savez(folder / "held_out.npz", **held_out)
    np.savez(folder / "labels.npz", **held_out, labels=np.arange(ROWS) % 2)
    for name, labels in BAD_LABELS.items():
        np.savez(folder / f"{name}.npz", **held_out, labels=labels)
    return folder


def answers(bundle, variant, runtime="onnxruntime"):
    with load(bundle, runtime=runtime, variant=variant) as session:
        return session.run(image_inputs(ROWS, 10, 12, seed=2))["logits"].argmax(-1)


def test_layers_are_returned_until_few_answers_are_not_eagers(copied_bundle, files):
    bundle = copied_bundle("fourier")
    convert_bundle(bundle, calibration=files / "calibration.npz")
    eager = answers(bundle, "fp32", "torch")
    assert (answers(bundle, "int8") != eager).mean() > 0.02  # or there would be nothing to keep
    result = convert_bundle(
        bundle, calibration=files / "calibration.npz", held_out=files / "held_out.npz", max_drop="2", force=True
    )
    assert (answers(bundle, "int8") != eager).mean() <= 0.02
    variant = Bundle.open(bundle).manifest.variants["int8"]
    contract = variant.recipe.model_dump()["contract"]
    assert contract["float32"]
    assert contract["before"]["onnxruntime"][0]["drop"] > 0.02 >= contract["after"]["onnxruntime"][0]["drop"]
    assert contract["after"]["onnxruntime"][1]["sqnr_db"] >= contract["after"]["onnxruntime"][1]["least_db"] == 20
    assert not contract["held_out"]["labels"]
    left = variant.recipe.model_dump()["graphs"]["full"]["left"]
    graph = ir.load(Bundle.open(bundle).file("onnx/int8.onnx")).graph
    for node in contract["nodes"]["full"]:
        assert "request" in left[node]
        (found,) = [each for each in graph if each.name == node]
        assert not any(value.producer() and value.producer().op_type == "DequantizeLinear" for value in found.inputs)
    assert 0 < result.reports["full"].quantized < result.reports["full"].weight_gemms


def test_half_precision_is_held_to_the_contract_by_labels(copied_bundle, files):
    bundle = copied_bundle("fourier")
    result = convert_bundle(bundle, precision="fp16", held_out=files / "labels.npz", max_drop="0.5")
    (drop,) = result.contract.after.found["onnxruntime"]
    assert (drop.metric, drop.examples) == ("top-1 accuracy", ROWS)
    assert drop.drop == pytest.approx(drop.eager - drop.value)
    assert drop.drop <= 0.005
    assert Bundle.open(bundle).manifest.variants["fp16"].recipe.model_dump()["contract"]["float32"] == []


def test_a_contract_that_cannot_be_kept_exits_4_with_the_best_and_leaves_the_bundle(copied_bundle, files, monkeypatch):
    bundle = copied_bundle("fourier")
    before = directory_content(bundle)
    monkeypatch.setattr(agreement, "agreement_metrics", lambda eager: (nothing_is_good_enough(eager),))
    command = ["convert", str(bundle), "--precision", "fp16", "--max-drop", "0.5%", "--quiet", "--json"]
    result = CliRunner().invoke(main, [*command, "--held-out", str(files / "held_out.npz")])
    assert result.exit_code == BoundError.exit_code == 4
    assert "No mixed precision keeps max-drop 0.5% of fp16" in result.stderr
    assert "Nothing was written" in result.stderr
    best = json.loads(result.stdout)
    drop, _ = best["contract"]["after"]["onnxruntime"]
    assert (drop["metric"], drop["drop"] > 0.005) == ("equal bits", True)
    assert best["contract"]["attempts"] > 1
    assert all(module in result.stderr for module in best["contract"]["float32"])
    assert ["equal bits" in breach for breach in best["breaches"]] == [True, True]  # in onnxruntime and exactly
    assert directory_content(bundle) == before


def nothing_is_good_enough(eager):
    """Every bit counts: only float32 itself would do."""
    metric = agreement.Metric
    same = lambda outputs, inputs, targets: (outputs["logits"] == eager["logits"]).all(-1).astype(float)  # noqa: E731
    return metric("equal bits", "%", True, same)


def test_the_contract_is_in_the_json_document(copied_bundle, files):
    command = ["convert", str(copied_bundle("fourier")), "--precision", "fp16", "--max-drop", "1", "--json", "--quiet"]
    result = CliRunner().invoke(main, [*command, "--held-out", str(files / "held_out.npz")])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["contract"]["max_drop"] == "1"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_drop": "0.5"}, UsageError, "not calibrated on.*--held-out"),
        ({"held_out": "digits"}, UsageError, "give max_drop too"),
        ({"max_drop": "0.5", "held_out": "calibration.npz"}, UsageError, "were calibrated on"),
        ({"max_drop": "0.5", "held_out": "copy.npz"}, UsageError, "were calibrated on"),
        ({"max_drop": "0.5", "held_out": "breast-cancer"}, InputError, "is for entities"),
        ({"max_drop": "0.5", "held_out": "digits"}, InputError, "other labels"),
        ({"max_drop": "0.5", "held_out": "no_class.npz"}, InputError, "label 99 at example 0; expected 0 to"),
        ({"max_drop": "0.5", "held_out": "no_number.npz"}, InputError, "expected whole numbers"),
        ({"max_drop": "0.5", "held_out": "too_many.npz"}, InputError, "expected whole numbers"),
        ({"max_drop": "0.5", "held_out": "data.txt"}, InputError, "neither a data set"),
        ({"max_drop": "half", "held_out": "held_out.npz"}, UsageError, "max-drop is 'half'"),
    ],
)
def test_what_the_contract_cannot_be_judged_on_is_refused(shared_bundle, files, options, error, message):
    options = {name: files / value if name == "held_out" and "." in value else value for name, value in options.items()}
    with pytest.raises(error, match=message):
        convert_bundle(shared_bundle("fourier"), calibration=files / "calibration.npz", **options)
