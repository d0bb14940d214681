"""What must work wherever `perceiver-deploy[cpu]` is installed, as tests that each kind of environment inherits."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.data.media.files import read_example

ROOT = Path(__file__).parents[2]
RUNTIMES = ("onnxruntime", "openvino")
VERSIONS = """
import platform
from importlib.metadata import distributions
print(platform.machine(), "Python", platform.python_version(), "with", end=" ")
print(*sorted(f"{found.name} {found.version}" for found in distributions()), sep=", ")
"""


@dataclass(frozen=True)
class Environment:
    """An installed package. `prefix` is a command that runs what follows it there, in the folder of inputs."""

    prefix: Sequence[str | Path]
    binaries: Path
    inputs: Path
    """As this process sees the folder."""
    variables: Mapping[str, str]

    def call(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        command = [*self.prefix, self.binaries / program, *arguments]
        return subprocess.run(list(map(str, command)), env=dict(self.variables), capture_output=True, text=True)

    def document(self, *arguments: str) -> Any:
        """What the tool says with `--json`, after it succeeded."""
        result = self.call("perceiver-deploy", *arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def variants(self, name: str) -> list[str]:
        return list(Bundle.open(self.inputs / f"{name}.bundle").manifest.variants)

    def print_versions(self) -> None:
        result = self.call("python", "-c", VERSIONS)
        assert result.returncode == 0, result.stderr
        print(f"\n{result.stdout.strip()}")  # noqa: T201


def run(*command: str | Path, **options: Any) -> None:
    """Fails with the end of what the command said."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{(result.stdout + result.stderr)[-4000:]}"


def put_inputs(exported: Path, folder: Path) -> None:
    """Bundles and a file of each kind that they take, into a new `folder`."""
    shutil.copytree(exported, folder)
    seven = Path(shutil.copy(ROOT / "examples/seven.png", folder))
    manifest = Bundle.open(folder / "digits.bundle").manifest
    np.savez(folder / "seven.npz", **read_example(seven, manifest.preprocessing, manifest.axes))
    (folder / "film.txt").write_text("A wonderful film: funny, warm and beautifully acted.\n")


class RuntimeChecks:
    """A subclass defines the fixture `environment`."""

    def test_help_lists_the_verbs(self, environment: Environment):
        result = environment.call("perceiver-deploy", "--help")
        assert result.returncode == 0, result.stderr
        assert "validate" in result.stdout

    def test_doctor_finds_both_runtimes_and_nothing_missing_in_the_extra(self, environment: Environment):
        diagnosed = environment.document("doctor")
        assert set(RUNTIMES) <= set(diagnosed["runtimes"])
        (cpu,) = (extra for extra in diagnosed["extras"] if extra["name"] == "cpu")
        assert all(cpu["packages"].values())
        assert cpu["install"] is None

    @pytest.mark.parametrize("name", ["digits", "sentiment"])
    def test_inspect_counts_the_operators_of_every_variant(self, environment: Environment, name):
        graphs = environment.document("inspect", f"{name}.bundle")["graphs"]
        assert [graph["name"] for graph in graphs] == environment.variants(name)
        assert all(graph["operators"]["MatMul"] > 0 for graph in graphs)

    @pytest.mark.parametrize("name", ["digits", "sentiment"])
    def test_golden_samples_are_reproduced_by_every_runtime_in_every_variant(self, environment: Environment, name):
        document = environment.document("validate", f"{name}.bundle", "--golden")
        assert document["passed"]
        assert document["reference"] == "golden samples"
        verdicts = document["verdicts"]
        assert all(verdict["passed"] for verdict in verdicts)
        expected = set(itertools.product(RUNTIMES, environment.variants(name)))
        assert {(verdict["runtime"], verdict["variant"]) for verdict in verdicts} == expected

    @pytest.mark.parametrize("runtime", RUNTIMES)
    @pytest.mark.parametrize("variant", ["fp32", "int8"])
    def test_a_digit_is_recognised(self, environment: Environment, runtime, variant):
        arguments = ("digits.bundle", "seven.npz", "--runtime", runtime, "--variant", variant)
        (prediction,) = environment.document("run", *arguments)
        assert prediction["classes"][0][0] == "7"

    def test_a_text_is_classified(self, environment: Environment):
        (prediction,) = environment.document("run", "sentiment.bundle", "film.txt")
        assert prediction["classes"][0][0] == "positive"
