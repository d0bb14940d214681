"""Bundles with the stages encoder and decoder: what the verbs make of them, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from perceiver_deploy import build_engine, convert_bundle, export_model, load, run_in_chunks, validate_bundle
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, TensorSpec
from perceiver_deploy.errors import BundleError, ExportError, InputError, ParityError, PerceiverDeployError, UsageError
from perceiver_deploy.model.stages import stage_module
from perceiver_deploy.pipeline.export import stages as export_stages
from perceiver_deploy.pipeline.inspect import inspect_path
from perceiver_deploy.runtimes.eager import EagerSession
from perceiver_deploy.runtimes.stages.reconstruction import reconstruct_clip
from tests.helpers.factories import VOCABULARY, perturbed_model, relative_l2, small_model, text_inputs
from tests.helpers.task_factories import TASK_CONFIGS

KIND = "masked_lm"
real_trace = export_stages.trace_model


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """A masked language model, whole and split, with an int8 variant; both gates passed."""
    path = tmp_path_factory.mktemp("beside") / "bundle"
    result = export_model(small_model(KIND), path, split="beside")
    assert {verdict.stages for verdict in result.verdicts} == {"full", "encoder + decoder"}
    assert {verdict.passed for verdict in result.verdicts} == {True}
    calibration = path.with_name("calibration.npz")
    np.savez(calibration, **text_inputs(16, 20))
    convert_bundle(path, calibration=calibration)
    return path


@pytest.fixture(scope="module")
def only(tmp_path_factory):
    path = tmp_path_factory.mktemp("only") / "bundle"
    export_model(small_model(KIND), path, split="only")
    return path


def test_a_split_export_adds_both_stages_and_their_golden_samples_pass(beside):
    manifest = Bundle.open(beside).manifest
    files = {"full": "onnx/fp32.onnx", "encoder": "onnx/fp32.encoder.onnx", "decoder": "onnx/fp32.decoder.onnx"}
    assert manifest.variants["fp32"].files == files
    assert manifest.stages.keys() == files.keys()
    assert "queries" in manifest.axes
    replayed = validate_bundle(beside, golden=True)
    assert replayed.passed
    ways = {(verdict.variant, verdict.runtime, verdict.stages) for verdict in replayed.verdicts}
    assert len(ways) == 8  # two variants, two runtimes, whole and split


def test_every_stage_is_quantised_and_the_pair_agrees_with_the_whole(beside):
    variant = Bundle.open(beside).manifest.variants["int8"]
    for counts in variant.recipe.model_dump()["graphs"].values():
        assert counts["quantized"] == counts["weight_gemms"] > 0
    assert variant.files["decoder"] == "onnx/int8.decoder.onnx"
    inputs = text_inputs(2, 20, seed=5)
    with load(beside, variant="int8") as session, load(beside) as exact:
        found, whole = run_in_chunks(session, inputs)["logits"], session.run(inputs)["logits"]
        error = relative_l2(whole, exact.run(inputs)["logits"])
    # the same roundings but for those of latents between the graphs: nearer to each other than to fp32
    assert 0 < error < 0.5
    assert relative_l2(found, whole) < error


def test_only_the_masked_positions_can_be_asked_for(beside):
    inputs = text_inputs(2, 20)
    with load(beside) as session:
        whole = session.run(inputs)["logits"]
        latents = session.encode(inputs)
        assert latents["latents"].shape == (2, 8, 32)
        mask = inputs["attention_mask"][:, [3, 17]]
        asked = {**latents, "positions": np.array([3, 17]), "attention_mask": mask}
        answered = session.decode(asked)["logits"]
    assert answered.shape == (2, 2, VOCABULARY)
    np.testing.assert_allclose(answered, whole[:, [3, 17]], atol=1e-5)  # float32 sums of values up to 10


def test_eager_encodes_and_decodes_too(beside):
    inputs = text_inputs(2, 20)
    with load(beside, runtime="torch") as eager, load(beside) as session:
        assert eager.runtime == "torch"
        assert relative_l2(eager.encode(inputs)["latents"], session.encode(inputs)["latents"]) < 1e-5
        assert relative_l2(run_in_chunks(eager, inputs, chunk=7)["logits"], eager.run(inputs)["logits"]) < 1e-5


def test_a_bundle_of_encoder_and_decoder_alone_runs_as_the_whole_model(only, beside):
    manifest = Bundle.open(only).manifest
    assert manifest.variants["fp32"].files.keys() == {"encoder", "decoder"}
    assert "onnx/fp32.onnx" not in manifest.files
    inputs = text_inputs(2, 11)
    with load(only) as split, load(beside) as whole:
        assert split.runtime == "onnxruntime"
        assert relative_l2(split.run(inputs)["logits"], whole.run(inputs)["logits"]) < 1e-5
    result = validate_bundle(only, golden=True)
    assert result.passed
    assert {verdict.stages for verdict in result.verdicts} == {"encoder + decoder"}


def test_engines_are_built_from_a_whole_model_unless_a_stage_is_named(only):
    with pytest.raises(BundleError, match="has the stages encoder, decoder, not 'full'"):
        build_engine(only)


def test_inspect_lists_what_each_stage_takes_and_gives(beside):
    inspection = inspect_path(beside)
    assert [tensor.name for tensor in inspection.inputs] == ["input_ids", "attention_mask"]
    decoder = inspection.stages["decoder"]
    assert [tensor.name for tensor in decoder.inputs] == ["latents", "positions", "attention_mask"]
    assert decoder.outputs[0].shape == ("batch", "queries", VOCABULARY)
    assert [(graph.name, graph.stage) for graph in inspection.graphs][:3] == [
        ("fp32", "full"),
        ("fp32", "encoder"),
        ("fp32", "decoder"),
    ]
    assert all(graph.operators["MatMul"] for graph in inspection.graphs)


@pytest.mark.parametrize("wrong", ["encoder", "decoder"])
def test_a_wrong_stage_fails_the_gate_and_is_named(wrong, tmp_path, monkeypatch):
    def trace_model(model, signature, options):
        graph = real_trace(model, signature, options)
        tensors = signature.stage.outputs if wrong == "encoder" else signature.stage.inputs
        if tensors[0].name == "latents":
            value = graph.graph.initializers[f"{wrong}.cross_attention.mlp.2.weight.transposed"]
            value.const_value = ir.tensor((value.const_value.numpy() * 1.001).astype(np.float32), name=value.name)
        return graph

    monkeypatch.setattr(export_stages, "trace_model", trace_model)
    with pytest.raises(ParityError, match=r"variant fp32 \(encoder \+ decoder\)"):
        export_model(small_model(KIND), tmp_path / "out", split="only")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / f"out.failed/fp32.{wrong}.onnx").exists()


def test_what_a_stage_does_not_take_is_refused_before_running(beside):
    inputs = text_inputs(2, 20)
    with load(beside) as session:
        latents = session.encode(inputs)["latents"]
        asked = {"latents": latents, "positions": np.arange(2), "attention_mask": np.ones((2, 2), np.int64)}
        session.decode(asked)
        for changed, message in (
            ({"latents": latents.astype(np.float64)}, "dtype float64; expected float32"),
            ({"latents": latents[:, :7]}, r"expected \[batch, 8, 32\]"),
            ({"positions": np.array([0, 32])}, "value 32; expected at most 31"),
            ({"positions": np.arange(3)}, "the same queries, got 3 and 2"),
        ):
            with pytest.raises(InputError, match=message):
                session.decode({**asked, **changed})
        with pytest.raises(InputError, match="'attention_mask' is missing"):
            session.encode({"input_ids": inputs["input_ids"]})
        with pytest.raises(UsageError, match="chunk is 0"):
            run_in_chunks(session, inputs, chunk=0)
    for call in (session.run, session.encode):
        with pytest.raises(PerceiverDeployError, match="session is closed"):
            call(inputs)


def test_points_outside_the_clip_are_refused():
    model = perturbed_model(TASK_CONFIGS["multimodal_autoencoding"])
    decoder = model.stages["decoder"]
    session = EagerSession(stage_module(model, "decoder"), decoder.stage, decoder.axes)
    inputs = {
        "latents": np.zeros((1, 8, 32), np.float32),
        "image_points": np.array([0, 95]),
        "audio_points": np.array([6]),
        "clip_size": np.array([2, 6, 8, 7]),
    }
    session.run(inputs)
    with pytest.raises(InputError, match="'image_points' holds the value 96; expected at most 95"):
        session.run({**inputs, "image_points": np.array([96])})
    with pytest.raises(InputError, match="'audio_points' holds the value 7; expected at most 6"):
        session.run({**inputs, "audio_points": np.array([7])})


def test_a_bundle_without_stages_says_how_to_get_them(shared_bundle):
    with load(shared_bundle("fourier")) as session:
        with pytest.raises(BundleError, match=r"no stage 'encoder'.*--split"):
            session.encode({})
        with pytest.raises(BundleError, match=r"no stage 'decoder'.*--split"):
            session.decode({})
        with pytest.raises(BundleError, match="--split"):
            run_in_chunks(session, {"pixel_values": np.zeros((1, 3, 8, 8), np.float32)})


def test_a_clip_is_encoded_once_and_gives_the_numbers_of_encoding_it_for_each_chunk(tmp_path, monkeypatch):
    model = perturbed_model(TASK_CONFIGS["multimodal_autoencoding"])
    export_model(model, tmp_path / "bundle", split="only", validate=False, weights=False)
    rng = np.random.default_rng(0)
    clip = {
        "image": rng.random((2, 3, 3, 4, 6), np.float32),
        "audio": rng.uniform(-1, 1, (2, 40, 1)).astype(np.float32),
    }
    again = reconstruct_clip(EagerSession(model, model.signature.stage, model.signature.axes), clip, chunk=30)
    with load(tmp_path / "bundle") as session:
        encoder, decoder = session.stage("encoder"), session.stage("decoder")
        calls = []
        for stage in (encoder, decoder):
            run = stage.run
            monkeypatch.setattr(stage, "run", lambda inputs, run=run: calls.append(inputs) or run(inputs))
        once = reconstruct_clip(session, clip, chunk=30)
    assert ["image" in inputs for inputs in calls] == [True, False, False, False]  # 72 pixels in chunks of 30
    for name, array in again.items():
        assert relative_l2(once[name], array) <= 1e-5  # two implementations in float32


class Doubler(nn.Module):
    """A module whose decoder takes what its data do not say."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    data = TensorSpec(name="data", dtype="float32", shape=("batch", 3))
    latents = TensorSpec(name="latents", dtype="float32", shape=("batch", 2))
    factor = TensorSpec(name="factor", dtype="float32", shape=("batch", 1))
    result = TensorSpec(name="result", dtype="float32", shape=("batch", 2))
    axes = {"batch": Axis(opt=1)}  # noqa: RUF012
    signature = Signature(task="custom", axes=axes, stage=Stage(inputs=(data,), outputs=(result,)))
    stages = {  # noqa: RUF012
        "encoder": Signature(task="custom", axes=axes, stage=Stage(inputs=(data,), outputs=(latents,))),
        "decoder": Signature(task="custom", axes=axes, stage=Stage(inputs=(latents, factor), outputs=(result,))),
    }

    def forward(self, data):
        return {"result": 2 * self.layer(data)}

    def encode(self, data):
        return {"latents": self.layer(data)}

    def decode(self, latents, factor):
        return {"result": factor * latents}


def test_stages_that_do_not_make_the_whole_can_only_be_called_one_by_one(tmp_path):
    torch.manual_seed(0)
    model = Doubler()
    with pytest.raises(ParityError, match=r"takes 'factor', which .* Call session.encode"):
        export_model(model, tmp_path / "out", split="only")
    export_model(model, tmp_path / "out", split="only", validate=False)
    data = np.ones((1, 3), np.float32)
    with load(tmp_path / "out") as session:
        with pytest.raises(UsageError, match=r"takes 'factor', which .* Call session.encode"):
            session.run({"data": data})
        latents = session.encode({"data": data})
        result = session.decode({**latents, "factor": np.full((1, 1), 2, np.float32)})["result"]
    np.testing.assert_allclose(result, model(torch.from_numpy(data))["result"].detach().numpy(), rtol=1e-6)


def test_a_module_without_stages_cannot_be_split(tmp_path):
    model = Doubler()
    model.stages = None
    with pytest.raises(ExportError, match="no property `stages`"):
        export_model(model, tmp_path / "out", split="beside")


def test_a_damaged_stage_is_found_when_it_is_opened(beside, tmp_path):
    copy = shutil.copytree(beside, tmp_path / "copy")
    (copy / "onnx/fp32.decoder.onnx").write_bytes(b"")
    with load(copy) as session:
        assert session.run(text_inputs(1, 4))  # needs the stage `full` alone
        with pytest.raises(BundleError, match=r"fp32\.decoder\.onnx was changed"):
            session.decode(session.encode(text_inputs(1, 4)))
