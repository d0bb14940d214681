"""Weights in a file of their own: written, checked, run, converted, built from, and refused when they do not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from perceiver_deploy import build_engine, convert_bundle, export_model, load
from perceiver_deploy.bundle.bundle import Bundle, sha256
from perceiver_deploy.bundle.onnx_header import external_files
from perceiver_deploy.errors import BundleError, ParityError
from perceiver_deploy.evaluate.parity import verdicts as parity
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.export.graph.files import write_graph
from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.pipeline.inspect import inspect_path
from tests.helpers.factories import directory_content, small_model

ONNX, DATA = "onnx/fp32.onnx", "onnx/fp32.onnx.data"
EXTERNAL = GraphOptions(external_above=1000)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A bundle of a small model whose weights are beyond the threshold. Read only."""
    path = tmp_path_factory.mktemp("external") / "bundle"
    export_model(small_model("masked_lm"), path, options=EXTERNAL)
    return path


@pytest.fixture
def bundle(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "bundle")


def some_inputs(path, batch=2):
    manifest = Bundle.open(path).manifest
    sizes = {name: axis.opt - 1 for name, axis in manifest.axes.items()} | {"batch": batch}
    return make_inputs(manifest.signature, Case("other", sizes), manifest.preprocessing, seed=1)


def test_weights_beyond_the_threshold_lie_in_a_listed_file_beside_a_small_graph(exported, shared_bundle):
    bundle = Bundle.open(exported)
    assert bundle.manifest.provenance["gate"] == "passed"
    assert {ONNX, DATA} <= set(bundle.manifest.files)
    assert external_files(bundle.file(ONNX)) == [exported / DATA]
    plain = shared_bundle("masked_lm") / ONNX
    tensors = ir.load(plain).graph.initializers.values()
    large = [value.const_value for value in tensors if value.const_value.nbytes > 256]
    assert (exported / DATA).stat().st_size == sum(tensor.nbytes for tensor in large)
    assert (exported / ONNX).stat().st_size < plain.stat().st_size - (exported / DATA).stat().st_size + 10_000


def test_the_numbers_are_those_of_the_model_in_one_file(exported, shared_bundle):
    inputs = some_inputs(exported)
    for runtime in ("onnxruntime", "openvino"):
        with load(exported, runtime) as external, load(shared_bundle("masked_lm"), runtime) as plain:
            np.testing.assert_array_equal(external.run(inputs)["logits"], plain.run(inputs)["logits"])


@pytest.mark.slow
@pytest.mark.usefixtures("traced_afresh")
def test_two_exports_give_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        export_model(small_model("masked_lm"), tmp_path / name, options=EXTERNAL)
    assert directory_content(tmp_path / "second") == directory_content(tmp_path / "first")


@pytest.mark.parametrize("name", ["masked_lm", "conv", "multimodal_autoencoding"])
def test_the_checker_accepts_a_model_with_its_weights_outside(name, shared_bundle, tmp_path):
    model = ir.load(shared_bundle(name) / ONNX)
    write_graph(model, tmp_path / "model.onnx", external_above=0)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    assert external_files(tmp_path / "model.onnx") == [tmp_path / "model.onnx.data"]
    again = ir.load(tmp_path / "model.onnx").graph.initializers
    for name, value in model.graph.initializers.items():
        np.testing.assert_array_equal(again[name].const_value.numpy(), value.const_value.numpy())


def test_a_model_at_the_threshold_stays_one_file(tmp_path):
    tensor = ir.tensor(np.zeros(100, np.float32), name="w")
    weight = ir.Value(name="w", shape=tensor.shape, type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    node = ir.node("Identity", [weight])
    model = ir.Model(
        ir.Graph([], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 20}), ir_version=9
    )
    for above, files in ((400, ["m.onnx"]), (399, ["m.onnx", "m.onnx.data"])):
        write_graph(model, tmp_path / "m.onnx", external_above=above)
        assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_int8_of_such_a_model_keeps_its_weights_outside_too_and_runs(bundle, tmp_path):
    np.savez(tmp_path / "data.npz", **some_inputs(bundle, batch=6))
    result = convert_bundle(bundle, precision="int8", calibration=tmp_path / "data.npz")
    assert result.reports["full"].quantized == result.reports["full"].weight_gemms > 0
    files = {path.relative_to(bundle).as_posix() for path in (bundle / "onnx").iterdir()}
    assert files == {ONNX, DATA, "onnx/int8.onnx", "onnx/int8.onnx.data"} <= set(Bundle.open(bundle).manifest.files)
    assert result.onnx_bytes == sum((bundle / f"onnx/int8.onnx{suffix}").stat().st_size for suffix in ("", ".data"))
    inputs = some_inputs(bundle)
    with load(bundle) as full, load(bundle, variant="int8") as int8:
        reference, found = full.run(inputs)["logits"], int8.run(inputs)["logits"]
    # INT8 on random weights and noise: wrong wiring gives an error of 1
    assert 0 < np.linalg.norm(found - reference) / np.linalg.norm(reference) < 0.5


def test_an_engine_is_built_from_it_and_names_the_digest_of_the_weights(bundle):
    pytest.importorskip("tensorrt_rtx", reason="building engines needs tensorrt-rtx-cu13")
    facts = build_engine(bundle).facts
    weights = {DATA: sha256(bundle / DATA)}
    assert facts["onnx"] == {"file": ONNX, "sha256": sha256(bundle / ONNX), "data": weights}


def test_inspect_counts_the_bytes_of_the_weights(bundle):
    size = (bundle / ONNX).stat().st_size + (bundle / DATA).stat().st_size
    of_bundle, of_file = inspect_path(bundle), inspect_path(bundle / ONNX)
    assert [graph.bytes for graph in (*of_bundle.graphs, *of_file.graphs)] == [size, size]
    assert of_file.parameters > 10_000


def cut(bundle):
    (bundle / DATA).write_bytes((bundle / DATA).read_bytes()[:-1])


def change(bundle):
    content = bytearray((bundle / DATA).read_bytes())
    content[0] ^= 1
    (bundle / DATA).write_bytes(content)


def remove(bundle):
    (bundle / DATA).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut, "that file has"), (change, "was changed after the bundle was written"), (remove, "which is not there")],
)
def test_damaged_weights_are_refused_by_every_verb_before_an_engine_reads_them(bundle, tmp_path, damage, message):
    np.savez(tmp_path / "data.npz", **some_inputs(bundle))
    damage(bundle)
    readers = [
        lambda: load(bundle, "onnxruntime"),
        lambda: load(bundle, "openvino"),
        lambda: convert_bundle(bundle, calibration=tmp_path / "data.npz"),
        lambda: build_engine(bundle),
    ]
    if damage is not change:  # a file that is not in a bundle has no digest
        readers.append(lambda: inspect_path(bundle / ONNX))
    for read in readers:
        with pytest.raises(BundleError, match=message):
            read()


def test_an_onnx_file_of_others_that_reads_outside_its_folder_is_refused(bundle, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    model = onnx.load(bundle / ONNX, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret"
    (tmp_path / "foreign").mkdir()
    onnx.save(model, tmp_path / "foreign/model.onnx")
    with pytest.raises(BundleError, match=r"reads weights from '\.\./secret', outside its folder"):
        inspect_path(tmp_path / "foreign/model.onnx")


def foreign_file(path, **metadata):
    """A model of others: an operator of their own, a sequence, a shape that is not known."""
    nodes = [
        onnx.helper.make_node("Theirs", ["x"], ["y"], domain="their.domain"),
        onnx.helper.make_node("SequenceConstruct", ["x"], ["s"]),
    ]
    outputs = [onnx.ValueInfoProto(name="y"), onnx.helper.make_tensor_sequence_value_info("s", 1, None)]
    graph = onnx.helper.make_graph(nodes, "g", [onnx.helper.make_tensor_value_info("x", 1, ["n", None])], outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    for key, value in metadata.items():
        model.metadata_props.add(key=f"perceiver_deploy.{key}", value=value)
    onnx.save(model, path)
    return path


def test_an_onnx_file_not_made_here_is_described_without_what_it_does_not_say(tmp_path):
    found = inspect_path(foreign_file(tmp_path / "foreign.onnx"))
    assert found.graphs[0].operators == {"their.domain.Theirs": 1, "SequenceConstruct": 1}
    assert (found.task, found.axes, found.provenance["opset"]) == (None, {}, 13)
    assert [tensor.name for tensor in (*found.inputs, *found.outputs)] == ["x", "y", "s"]


@pytest.mark.parametrize("metadata", [{"rewrites": "none"}, {"axes": "[1]"}, {"axes": '{"x": {"opt": 0}}'}])
def test_metadata_that_only_looks_like_ours_is_refused(tmp_path, metadata):
    with pytest.raises(BundleError, match="cannot be read as an ONNX file"):
        inspect_path(foreign_file(tmp_path / "foreign.onnx", **metadata))


def test_a_failed_gate_keeps_the_weights_with_the_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(parity.Verdict, "passed", property(lambda self: False))
    with pytest.raises(ParityError):
        export_model(small_model("fourier"), tmp_path / "bundle", options=EXTERNAL)
    assert external_files(tmp_path / "bundle.failed/fp32.onnx") == [tmp_path / "bundle.failed/fp32.onnx.data"]


MEASURE = """
import json, resource, sys
from pathlib import Path
import torch
from perceiver_deploy.export.graph.files import write_graph
from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.export.trace import trace_model
from perceiver_deploy.model.checkpoints.load import load_checkpoint
torch.set_num_threads(1)
folder = Path(sys.argv[1])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
model = load_checkpoint(folder / "checkpoint").eval()
sum(float(p.sum()) for p in model.parameters())  # the file of weights is mapped, and read only now
figures = {"parameters": sum(p.numel() for p in model.parameters()), "loaded": peak()}
graph = trace_model(model, model.signature, GraphOptions())
figures["traced"] = peak()
write_graph(graph, folder / "model.onnx", 0)
figures["written"] = peak()
print(json.dumps(figures))
"""


@pytest.mark.full
def test_the_language_model_of_201_million_parameters_is_exported_without_holding_it_twice(tmp_path):
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.PerceiverConfig(qk_channels=8 * 32, v_channels=1280)
    transformers.PerceiverForMaskedLM(config).save_pretrained(tmp_path / "checkpoint")
    command = [sys.executable, "-c", textwrap.dedent(MEASURE), str(tmp_path)]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    weights = 4 * figures["parameters"]
    assert figures["parameters"] == 201_108_230
    assert (tmp_path / "model.onnx.data").stat().st_size > 0.99 * weights
    assert (tmp_path / "model.onnx").stat().st_size < 1 << 20
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    # A copy of the weights would add 100 %; tracing and its libraries add some, writing one tensor at a time little.
    assert figures["traced"] - figures["loaded"] < 0.5 * weights
    assert figures["written"] - figures["traced"] < 0.1 * weights
