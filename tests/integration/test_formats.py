"""Every form of checkpoint through the one entry: found out by itself, exported, run; `--format` forces one."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from perceiver_deploy import export_model, load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.cli.main import main
from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.checkpoints.load import load_checkpoint
from tests.unit.model.checkpoints.test_haiku import nested, random_parameters

DATA = Path(__file__).parents[1] / "data"
FIXTURES = sorted(path for name in ("krasserm", "lucidrains") for path in (DATA / name).iterdir())


def haiku_file(folder, kind="flow"):
    file = folder / f"{kind}.pystate"
    file.write_bytes(pickle.dumps(nested(random_parameters(kind))))
    return file


QUICK = ("masked_lm", "image_classifier", "image", "lm_tied")


@pytest.mark.parametrize(
    "fixture",
    [pytest.param(path, marks=() if path.name in QUICK else pytest.mark.slow) for path in FIXTURES],
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_a_checkpoint_of_another_package_is_found_out_and_exported_behind_the_gate(fixture, tmp_path):
    """That the loaded model gives the package's numbers is tested with its loader."""
    assert load_checkpoint(fixture).config == load_checkpoint(fixture, fixture.parent.name).config
    verdicts = export_model(fixture, tmp_path / "bundle").verdicts
    assert {verdict.passed for verdict in verdicts} == {True}
    assert Bundle.open(tmp_path / "bundle").manifest.provenance["source"]["name"] == fixture.name


def test_a_pickle_of_deepmind_is_exported_behind_the_gate_by_its_suffix(tmp_path):
    result = CliRunner().invoke(main, ["export", str(haiku_file(tmp_path)), "-o", str(tmp_path / "bundle"), "--json"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["task"] == "optical_flow"
    assert {verdict["passed"] for verdict in document["verdicts"]} == {True}
    with load(tmp_path / "bundle") as session:
        assert session.run({"patches": np.zeros((1, 2, 27, 5, 7), np.float32)})["flow"].shape == (1, 5, 7, 2)


def test_a_form_that_is_forced_is_the_one_that_is_tried(tmp_path):
    lucidrains = tmp_path / "image"
    shutil.copytree(DATA / "lucidrains" / "image", lucidrains)
    result = CliRunner().invoke(
        main, ["export", str(lucidrains), "-o", str(tmp_path / "out"), "--format", "krasserm", "--quiet"]
    )
    assert result.exit_code == 1
    assert "perceiver-io" in result.stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="is a file; a checkpoint of native is a directory"):
        load_checkpoint(haiku_file(tmp_path), "native")


def test_a_file_that_is_no_pickle_by_its_suffix_is_refused(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"x")
    with pytest.raises(
        CheckpointError,
        match=r"directory with config.json and weights, DeepMind's .pickle or .pystate, or krasserm's .ckpt",
    ):
        load_checkpoint(file)
