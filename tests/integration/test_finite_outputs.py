"""Conversion of models whose outputs are at the end of float32, or beyond it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from perceiver_deploy import export_model
from perceiver_deploy.cli.main import main
from perceiver_deploy.errors import ParityError
from tests.helpers.factories import CLASSES, directory_content, image_inputs, small_model

PIXELS = image_inputs(40, 10, 12)


def exported(model, folder):
    export_model(model, folder / "bundle", validate=False)
    np.savez(folder / "calibration.npz", **PIXELS)
    return folder / "bundle"


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Logit k is channel k times a number that takes its largest on the pixels to just below 3.4028e38."""
    model, seen = small_model("fourier"), []
    head = model.decoder.projection
    hook = head.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        model(torch.from_numpy(PIXELS["pixel_values"]))
        hook.remove()
        largest = seen[0].abs().flatten(0, -2).amax(0)[:CLASSES]
        head.weight.copy_(torch.eye(*head.weight.shape) * (3.3999e38 / largest)[:, None])
        head.bias.zero_()
    return exported(model, tmp_path_factory.mktemp("large"))


def convert(bundle, precision):
    data = str(bundle.parent / "calibration.npz")
    command = ["convert", str(bundle), "--precision", precision, "--calibration", data, "--json", "--quiet"]
    return CliRunner().invoke(main, command)


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_a_variant_whose_rounding_leaves_float32_is_refused_and_the_bundle_is_as_before(large, precision):
    before = directory_content(large)
    result = convert(large, precision)
    assert result.exit_code == ParityError.exit_code == 3, result.stderr
    assert f"{precision} is not written: of its output logits, " in result.stderr
    assert directory_content(large) == before


def test_fp16_keeps_what_is_beyond_its_range_in_float32(large):
    result = convert(large, "fp16")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["relative_l2"] < 0.01


def test_where_fp32_has_no_numbers_either_the_json_has_null(tmp_path):
    model = small_model("fourier")
    torch.nn.init.constant_(model.decoder.projection.bias, torch.nan)
    result = convert(exported(model, tmp_path), "bf16")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["relative_l2"] is None
