"""Every shipped checkpoint through export, gate and validate, in onnxruntime and OpenVINO."""

from __future__ import annotations

import pytest

from perceiver_deploy import validate_bundle
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.model.checkpoints.load import shipped_names

QUICK = ("breast-cancer", "digits")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in shipped_names()]
)
def test_shipped_checkpoint_passes_the_gate_and_keeps_its_numbers_in_both_runtimes(name, copied_bundle):
    bundle = copied_bundle(name)
    assert Bundle.open(bundle).samples()  # kept by a gate that was passed
    result = validate_bundle(bundle, golden=True, threads=1)
    assert result.passed
    assert {verdict.runtime for verdict in result.verdicts} == {"onnxruntime", "openvino"}
