"""What a user gets from `pip install perceiver-deploy[cpu]`: a bundle runs and validates without torch or onnx."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from perceiver_deploy import load

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh virtual environment with the wheel and its `cpu` and `media` extras, at the pinned versions."""
    folder = tmp_path_factory.mktemp("torch-free")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(folder.glob("*.whl"))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{wheel}[cpu,media]"]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "venv/bin"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, shared_bundle):
    return shutil.copytree(shared_bundle("digits"), tmp_path_factory.mktemp("bundle") / "digits.bundle")


def call(environment, *arguments, tmp_path):
    """Away from the checkout, so that only what was installed can be imported."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [str(argument) for argument in arguments], cwd=tmp_path, env=variables, capture_output=True, text=True
    )


def test_no_torch_onnx_or_transformers_is_installed(environment, tmp_path):
    listed = call(environment, environment / "python", "-m", "pip", "list", "--format=json", tmp_path=tmp_path)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert {"perceiver-deploy", "onnxruntime", "openvino"} <= names
    assert not names & {"torch", "onnx", "onnx-ir", "onnxscript", "transformers", "safetensors"}


def test_outputs_equal_those_of_the_full_environment(environment, bundle, tmp_path):
    program = """
import sys, numpy as np
from perceiver_deploy import load
for runtime in ("onnxruntime", "openvino"):
    with load(sys.argv[1], runtime=runtime, threads=1) as session:
        inputs = {"pixel_values": np.random.default_rng(0).normal(size=(2, 3, 9, 7)).astype(np.float32)}
        np.save(f"{runtime}.npy", session.run(inputs)["logits"])
assert "torch" not in sys.modules and "onnx" not in sys.modules
"""
    result = call(environment, environment / "python", "-c", program, bundle, tmp_path=tmp_path)
    assert result.returncode == 0, result.stderr
    inputs = {"pixel_values": np.random.default_rng(0).normal(size=(2, 3, 9, 7)).astype(np.float32)}
    for runtime in ("onnxruntime", "openvino"):
        with load(bundle, runtime=runtime, threads=1) as session:
            expected = session.run(inputs)["logits"]
        np.testing.assert_array_equal(np.load(tmp_path / f"{runtime}.npy"), expected)


def test_validate_replays_the_golden_samples(environment, bundle, tmp_path):
    result = call(environment, environment / "perceiver-deploy", "validate", bundle, "--json", tmp_path=tmp_path)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["reference"] == "golden samples"
    assert {verdict["runtime"] for verdict in document["verdicts"]} == {"onnxruntime", "openvino"}
    assert len({verdict["case"] for verdict in document["verdicts"]}) >= 4


def test_run_and_inspect_and_doctor_work(environment, bundle, tmp_path):
    tool = environment / "perceiver-deploy"
    ran = call(environment, tool, "run", bundle, ROOT / "examples/seven.png", "--json", tmp_path=tmp_path)
    assert json.loads(ran.stdout)[0]["classes"][0][0] == "7"
    inspected = call(environment, tool, "inspect", bundle, "--json", tmp_path=tmp_path)
    assert json.loads(inspected.stdout)["graphs"][0]["operators"]["MatMul"] > 0
    diagnosed = call(environment, tool, "doctor", "--json", tmp_path=tmp_path)
    extras = {extra["name"]: extra for extra in json.loads(diagnosed.stdout)["extras"]}
    assert extras["export"]["install"] == "pip install 'perceiver-deploy[export]'"


def test_the_wheel_has_the_cpp_sources_and_says_where(environment, tmp_path):
    result = call(environment, environment / "perceiver-deploy", "cpp-dir", tmp_path=tmp_path)
    folder = Path(result.stdout.strip())
    assert folder.is_relative_to(environment.parent)
    assert (folder / "include/perceiver_deploy/perceiver_deploy.h").is_file()
    assert (folder / "../bundle.schema.json").is_file()  # which the library is built with


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (("export", "digits", "-o", "out"), "export"),
        (("train", "digits", "-o", "out"), "train"),
        (("convert", "BUNDLE", "--precision", "int8", "--calibration", "digits"), "export"),
        (("build", "BUNDLE", "--engine", "tensorrt-rtx"), "rtx"),
        (("run", "BUNDLE", "x.png", "--runtime", "torch"), "export"),
        (("demo", "-o", "out"), "train,cpu,report"),
    ],
)
def test_a_verb_whose_extra_is_missing_exits_5_and_names_it(environment, bundle, tmp_path, arguments, package):
    given = [str(bundle) if argument == "BUNDLE" else argument for argument in arguments]
    result = call(environment, environment / "perceiver-deploy", *given, tmp_path=tmp_path)
    assert result.returncode == 5, result.stderr
    assert f"pip install 'perceiver-deploy[{package}" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_importing_the_package_imports_no_engine(environment, tmp_path):
    program = (
        "import sys, perceiver_deploy; print(sorted({'torch', 'onnxruntime', 'openvino', 'numpy'} & set(sys.modules)))"
    )
    result = call(environment, environment / "python", "-c", program, tmp_path=tmp_path)
    assert result.stdout.strip() == "[]"
