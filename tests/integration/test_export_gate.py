"""What an export does when the graph is not the model."""

import dataclasses
import json

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.samples import load_sample
from perceiver_deploy.errors import BundleError, ParityError, PerceiverDeployError
from perceiver_deploy.model.checkpoints.own import save_checkpoint
from perceiver_deploy.pipeline.export import export as pipeline
from perceiver_deploy.pipeline.export import gate as export_gate
from perceiver_deploy.pipeline.export import stages as export_stages
from perceiver_deploy.pipeline.export.export import export_model
from perceiver_deploy.pipeline.validate.validate import validate_bundle
from perceiver_deploy.runtimes.opening import load
from tests.helpers.factories import directory_content, image_inputs, relative_l2, small_model

KIND = "text_classification"
real_trace = export_stages.trace_model


def change_a_weight(graph, factor):
    """Scale one stored matrix."""
    value = next(value for value in graph.graph.initializers.values() if len(value.shape) == 2)
    value.const_value = ir.tensor((value.const_value.numpy() * factor).astype(np.float32), name=value.name)


@pytest.fixture
def wrong_graphs(monkeypatch):
    """Every traced graph has one weight that is wrong by a tenth of a per cent."""

    def trace_model(model, signature, options):
        graph = real_trace(model, signature, options)
        change_a_weight(graph, 1.001)
        return graph

    monkeypatch.setattr(export_stages, "trace_model", trace_model)


@pytest.mark.usefixtures("wrong_graphs")
def test_a_failed_gate_leaves_no_bundle_but_its_evidence(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ParityError, match=r"Parity failed in \d+ of \d+ comparisons.*No bundle was written") as caught:
        export_model(small_model(KIND), out)
    assert caught.value.exit_code == 3
    assert "'logits'" in str(caught.value)
    assert str(tmp_path / "out.failed") in str(caught.value)
    assert [child.name for child in tmp_path.iterdir()] == ["out.failed"]
    assert set(directory_content(tmp_path / "out.failed")) == {"fp32.onnx", "parity.json", "sample.npz"}


@pytest.mark.usefixtures("wrong_graphs")
def test_the_evidence_reproduces_the_failure(tmp_path):
    with pytest.raises(ParityError):
        export_model(small_model(KIND), tmp_path / "out")
    evidence = tmp_path / "out.failed"
    verdicts = json.loads((evidence / "parity.json").read_text(), parse_constant=pytest.fail)  # strict JSON
    failed = [verdict for verdict in verdicts if not verdict["passed"]]
    assert failed
    sample = load_sample(evidence / "sample.npz")
    assert sample.name == failed[-1]["case"]
    onnx.checker.check_model(evidence / "fp32.onnx")
    session = onnxruntime.InferenceSession(str(evidence / "fp32.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, sample.inputs)
    error = relative_l2(found, sample.float64["logits"])
    assert error == pytest.approx(failed[-1]["figures"]["relative_l2"], rel=1e-3)  # the same kernels, maybe reordered
    assert error > failed[-1]["bound"]


def test_an_existing_bundle_survives_a_failed_replacement(copied_bundle, monkeypatch, tmp_path, request):
    path = copied_bundle(KIND)
    before = directory_content(path)
    request.getfixturevalue("wrong_graphs")
    with pytest.raises(ParityError):
        export_model(small_model(KIND), path, force=True)
    assert directory_content(path) == before
    assert sorted(child.name for child in tmp_path.iterdir()) == [path.name, f"{path.name}.failed"]


@pytest.mark.usefixtures("wrong_graphs")
def test_evidence_of_an_earlier_failure_is_replaced(tmp_path):
    (tmp_path / "out.failed").mkdir()
    (tmp_path / "out.failed/parity.json").write_text("[]")
    (tmp_path / "out.failed/old.onnx").write_text("")
    with pytest.raises(ParityError):
        export_model(small_model(KIND), tmp_path / "out")
    assert set(directory_content(tmp_path / "out.failed")) == {"fp32.onnx", "parity.json", "sample.npz"}
    assert (tmp_path / "out.failed/parity.json").read_text() != "[]\n"


@pytest.mark.usefixtures("wrong_graphs")
def test_without_the_gate_the_bundle_is_written_and_says_so(tmp_path):
    result = export_model(small_model(KIND), tmp_path / "out", validate=False)
    assert result.verdicts == []
    assert Bundle.open(tmp_path / "out").manifest.provenance["gate"] == "skipped"
    assert not (tmp_path / "out.failed").exists()


def test_without_the_gate_nothing_but_the_tracer_runs_the_model_and_there_are_no_golden_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "Reference", lambda *_: pytest.fail("made copies of the model"))
    export_model(small_model(KIND), tmp_path / "out", validate=False)
    assert Bundle.open(tmp_path / "out").samples() == []
    assert validate_bundle(tmp_path / "out").passed  # with its weights, against the grid
    with pytest.raises(BundleError, match="no golden samples to replay: it was exported with --no-validate"):
        validate_bundle(tmp_path / "out", golden=True)


def test_any_output_that_fails_fails_the_gate_not_only_the_last(tmp_path, monkeypatch):
    def judge(candidates, sample):
        (verdict,) = real_judge(candidates, sample)
        return [dataclasses.replace(verdict, output="first", bound=1e-12), verdict]

    real_judge = export_gate.judge
    monkeypatch.setattr(export_gate, "judge", judge)
    with pytest.raises(ParityError):
        export_model(small_model(KIND), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_graph_that_breaks_at_run_time_is_an_error_of_ours_and_leaves_no_bundle(tmp_path, monkeypatch):
    """A position table that is too short lets the graph be loaded and fails at the first run."""

    def trace_model(model, signature, options):
        graph = real_trace(model, signature, options)
        table = next(value for value in graph.graph.initializers.values() if (value.name or "").endswith("positions"))
        table.const_value = ir.tensor(table.const_value.numpy()[:7], name=table.name)
        table.shape = ir.Shape([7, *list(table.shape)[1:]])
        return graph

    monkeypatch.setattr(export_stages, "trace_model", trace_model)
    with pytest.raises(PerceiverDeployError) as caught:
        export_model(small_model(KIND), tmp_path / "out")
    assert caught.value.exit_code in (1, 3)
    assert not (tmp_path / "out").exists()


def test_a_model_that_gives_nan_does_not_pass(tmp_path):
    model = small_model(KIND)
    with torch.no_grad():
        model.encoder.latents[0, 0] = torch.nan
    with pytest.raises(ParityError, match="not finite"):
        export_model(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_refused_before_any_work(shared_bundle, monkeypatch):
    path = shared_bundle(KIND)
    monkeypatch.setattr(export_stages, "trace_model", lambda *_: pytest.fail("traced"))
    with pytest.raises(BundleError, match="exists already"):
        export_model(small_model(KIND), path)


def test_an_export_from_a_checkpoint_names_its_source_without_the_machine(tmp_path):
    checkpoint = tmp_path / "my-checkpoint"
    checkpoint.mkdir()
    save_checkpoint(small_model("fourier"), checkpoint)
    result = export_model(checkpoint, tmp_path / "out")
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.provenance["source"]["name"] == "my-checkpoint"
    assert manifest.provenance["gate"] == "passed"
    assert manifest.labels == tuple("abcde")
    assert str(tmp_path) not in (tmp_path / "out/bundle.json").read_text()
    assert [verdict.case for verdict in result.verdicts] == ["opt", "odd", "min", "beyond opt"]
    assert all(verdict.passed for verdict in result.verdicts)


def test_golden_samples_of_a_bundle_are_what_its_runtimes_give(shared_bundle):
    bundle = Bundle.open(shared_bundle(KIND))
    assert {"samples/opt.npz", "samples/odd-fully-masked-row.npz", "samples/min.npz"} <= set(bundle.samples())
    with load(bundle) as session:
        for name in bundle.samples():
            sample = load_sample(bundle.file(name))
            # the bound that the gate held the graph to
            bound = max(1e-6, 10 * relative_l2(sample.float32["logits"], sample.float64["logits"]))
            assert relative_l2(session.run(sample.inputs)["logits"], sample.float64["logits"]) <= bound


def test_a_bundle_without_weights_holds_the_graph_and_the_configuration(tmp_path):
    export_model(small_model("fourier"), tmp_path / "out", weights=False)
    files = Bundle.open(tmp_path / "out").manifest.files
    assert "model.safetensors" not in files
    assert {"config.json", "onnx/fp32.onnx"} <= files.keys()
    with load(tmp_path / "out") as session:
        assert session.run(image_inputs(1, 4, 4))["logits"].shape == (1, 5)
