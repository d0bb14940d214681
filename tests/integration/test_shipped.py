"""Every shipped checkpoint through export, gate and validate, in onnxruntime and OpenVINO."""

from __future__ import annotations

import pytest

from perceiver_deploy import export_model, validate_bundle
from perceiver_deploy.model.checkpoints.loading import shipped_names


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_checkpoint_passes_the_gate_and_keeps_its_numbers_in_both_runtimes(name, tmp_path):
    exported = export_model(name, tmp_path / "bundle")
    assert exported.verdicts
    assert all(verdict.passed for verdict in exported.verdicts)
    result = validate_bundle(tmp_path / "bundle", golden=True, threads=1)
    assert result.passed
    assert {verdict.runtime for verdict in result.verdicts} == {"onnxruntime", "openvino"}
