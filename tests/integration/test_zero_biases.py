"""Operands that an engine folds away, such as biases of zeros, change neither the rank nor the numbers of outputs.

A freshly initialised Hugging Face model has such biases. OpenVINO's INT8 gave its logits as [1, batch, classes].
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from perceiver_deploy import convert_bundle, export_model, load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import opt_sizes
from perceiver_deploy.errors import ExportError
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.export.passes.tidy.ranks import KeepRanks
from perceiver_deploy.runtimes.stages.queries import answer_queries
from tests.helpers.graph_passes import fired
from tests.helpers.task_factories import MODELS, named_model

SLOW = ("fourier", "entities")
MARKS = {"text_classification": (), **dict.fromkeys(SLOW, pytest.mark.slow)}


def zero_biases(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return model


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, pytest.mark.full)) for name in MODELS])
def test_every_precision_stage_and_runtime_gives_outputs_of_the_stated_rank(name, tmp_path):
    path = tmp_path / "bundle"
    export_model(zero_biases(named_model(name)), path, split="both", gate_seconds=1)
    manifest = Bundle.open(path).manifest
    cases = [Case("one", opt_sizes(manifest.axes)), Case("two", opt_sizes(manifest.axes) | {"batch": 3})]
    one, two = (make_inputs(manifest.signature, case, manifest.preprocessing, seed=1) for case in cases)
    np.savez(tmp_path / "calibration.npz", **two)
    convert_bundle(path, calibration=tmp_path / "calibration.npz")
    for precision in ("fp16", "bf16"):
        convert_bundle(path, precision=precision)
    try:
        convert_bundle(path, precision="int8-weights")
    except ExportError as error:  # of the smallest models
        assert "can be stored in INT8: a small weight" in str(error)
    for variant, entry in Bundle.open(path).manifest.variants.items():
        for runtime in ("onnxruntime", "openvino"):
            if runtime not in entry.runtimes:
                continue
            with load(path, runtime=runtime, variant=variant, threads=1) as session:
                assert session.conforms
                for inputs in (one, two):
                    whole = session.run(inputs)  # ranks and sizes are held to the manifest
                    parts = answer_queries(session, inputs, lambda count: count)  # those of the stages too
                    assert {key: array.shape for key, array in whole.items()} == {
                        key: array.shape for key, array in parts.items()
                    }


def test_a_graph_of_an_older_version_is_mended_when_it_is_quantised(shared_bundle):
    model = ir.load(shared_bundle("fourier") / "onnx/fp32.onnx")
    assert fired(KeepRanks(), model) == 0  # done by export
    squeezes = [node for node in model.graph if node.op_type == "Squeeze" and node.outputs[0].is_graph_output()]
    assert [value.name for node in squeezes for value in node.outputs] == ["logits"]
