"""The lowest versions that pyproject.toml promises: what each is needed for works with them.

Two environments are kept in build/lowest, the runtime's and the full one, until constraints-lowest.txt or the
dependencies change. The wheel is installed anew each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.environments.checks import ROOT, Environment, RuntimeChecks, put_inputs, run
from tests.environments.registry import missing

pytestmark = pytest.mark.full

CONSTRAINTS = ROOT / "constraints-lowest.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FULL = ("cpu", "export", "train", "hf", "media", "report")
DATA = ROOT / "tests/data"


def pins() -> dict[str, Version]:
    lines = re.findall(r"^([^#\s]+)==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in lines}


def bounds(extras) -> dict[str, Version]:
    """What is declared for the core and `extras`, by name: the version after `>=`."""
    declared = PROJECT["dependencies"] + [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    found = {}
    for requirement in map(Requirement, declared):
        if requirement.name != "perceiver-deploy":
            (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
            found[canonicalize_name(requirement.name)] = Version(bound)
    return found


def make_environment(extras, wheel, no_registry, inputs) -> Environment:
    content = f"{sys.version} {CONSTRAINTS.read_text()} {sorted(bounds(extras).items())} {extras}"
    folder = ROOT / "build/lowest" / ("full" if len(extras) > 1 else extras[0])
    stamp = folder / ".content"
    binaries = folder / "bin"
    digest = hashlib.sha256(content.encode()).hexdigest()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables |= {"PERCEIVER_DEPLOY_CACHE": str(inputs / "cache"), "HF_HUB_OFFLINE": "1"}
    pip = [binaries / "python", "-m", "pip", "install", "--quiet"]
    if not stamp.is_file() or stamp.read_text() != digest:
        if no_registry:
            missing(no_registry)
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        run(*pip, "--constraint", CONSTRAINTS, f"{wheel}[{','.join(extras)}]", env=variables)
        stamp.write_text(digest)
    run(*pip, "--no-index", "--no-deps", "--force-reinstall", wheel, env=variables)
    found = Environment(["env", f"--chdir={inputs}"], binaries, inputs, variables)
    found.print_versions()
    return found


def installed(environment: Environment) -> dict[str, Version]:
    listed = environment.call("python", "-m", "pip", "list", "--format=json")
    return {canonicalize_name(found["name"]): Version(found["version"]) for found in json.loads(listed.stdout)}


def test_what_is_pinned_are_the_bounds_of_pyproject():
    assert pins() == bounds(FULL)


@pytest.fixture(scope="module")
def core(wheel, exported, no_registry, tmp_path_factory) -> Environment:
    """With the extra `cpu` alone."""
    inputs = tmp_path_factory.mktemp("lowest") / "inputs"
    put_inputs(exported, inputs)
    return make_environment(("cpu",), wheel, no_registry, inputs)


class TestRuntime(RuntimeChecks):
    @pytest.fixture
    def environment(self, core) -> Environment:
        return core

    def test_the_lowest_versions_are_installed_without_torch(self, environment):
        found = installed(environment)
        assert "torch" not in found
        assert {name: found[name] for name in bounds(["cpu"])} == {name: pins()[name] for name in bounds(["cpu"])}


@pytest.fixture(scope="module")
def full(wheel, no_registry, tmp_path_factory) -> Environment:
    return make_environment(FULL, wheel, no_registry, tmp_path_factory.mktemp("lowest-full"))


@pytest.fixture(scope="module")
def digits(full) -> str:
    full.document("export", "digits", "-o", "digits.bundle")
    full.document("convert", "digits.bundle", "--precision", "int8", "--calibration", "digits")
    return "digits.bundle"


def test_the_lowest_versions_are_installed(full):
    found = installed(full)
    lowest = {name: Version(found[name].public) for name in bounds(FULL)}  # torch is 2.13.0+cpu where it may be
    assert lowest == pins()


def test_an_exported_and_quantised_model_passes_the_whole_grid(full, digits):
    document = full.document("validate", digits)
    assert document["passed"]
    assert document["reference"] != "golden samples"
    ways = {(verdict["runtime"], verdict["variant"]) for verdict in document["verdicts"]}
    assert {(runtime, variant) for runtime in ("onnxruntime", "openvino") for variant in ("fp32", "int8")} <= ways


@pytest.mark.parametrize("opset", [17, 22])
def test_a_model_is_written_in_the_lowest_and_a_higher_opset(full, opset):
    exported = f"opset-{opset}.bundle"
    full.document("export", "sentiment", "-o", exported, "--opset", str(opset))
    assert full.document("validate", exported, "--golden")["passed"]


def test_a_directory_that_transformers_saved_is_exported(full):
    program = (
        "import transformers as t; c = t.PerceiverConfig(num_latents=8, d_latents=32, num_self_attends_per_block=2,"
        " d_model=24, qk_channels=16, v_channels=32, max_position_embeddings=40); "
        "t.PerceiverForSequenceClassification(c).save_pretrained('saved')"
    )
    saved = full.call("python", "-c", program)
    assert saved.returncode == 0, saved.stderr
    full.document("export", "saved", "-o", "saved.bundle")
    assert full.document("validate", "saved.bundle", "--golden")["passed"]


@pytest.mark.parametrize(
    ("checkpoint", "file", "expected"),
    [
        ("digits", ROOT / "examples/seven.png", "7"),
        ("languages", ROOT / "examples/italian.wav", "Italian"),
        ("furniture", DATA / "furniture/table.obj", "table"),
        ("films-video", DATA / "video/bunny.mp4", "rabbit"),
    ],
)
def test_files_of_every_kind_are_read(full, checkpoint, file: Path, expected):
    bundle = f"{checkpoint}-media.bundle"
    full.document("export", checkpoint, "-o", bundle, "--no-validate")
    (prediction,) = full.document("run", bundle, str(file))
    assert prediction["classes"][0][0] == expected


def test_a_report_with_plots_is_written(full, digits):
    arguments = ("--data", "digits", "--batch", "1", "--seconds", "0.2", "--png", "-o", "report")
    full.document("benchmark", digits, *arguments)
    written = {path.name for path in (full.inputs / "report").iterdir()}
    assert {"benchmark.html", "benchmark.json"} <= written
    assert any(name.endswith(".png") for name in written)
