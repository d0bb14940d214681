"""The verbs as a user calls them: one process each, real files, exit codes and what is printed where."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from perceiver_deploy.cli.main import main

VERBS = (
    "demo",
    "train",
    "export",
    "convert",
    "build",
    "validate",
    "benchmark",
    "tune",
    "run",
    "inspect",
    "data",
    "doctor",
    "cpp-dir",
)


def call(*arguments, **kwargs):
    command = [sys.executable, "-m", "perceiver_deploy.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **kwargs)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The shipped digits model, exported and quantised by the command line."""
    path = tmp_path_factory.mktemp("cli") / "digits.bundle"
    exported = call("export", "digits", "-o", path, "--json")
    assert exported.returncode == 0, exported.stderr
    document = json.loads(exported.stdout)
    assert document["task"] == "image_classification"
    assert {verdict["passed"] for verdict in document["verdicts"]} == {True}
    converted = call("convert", path, "--precision", "int8", "--calibration", "digits", "--json")
    assert converted.returncode == 0, converted.stderr
    report = json.loads(converted.stdout)["reports"]["full"]
    assert report["quantized"] == report["weight_gemms"] == 33
    return path


def test_help_names_every_verb_and_imports_nothing_that_takes_time():
    command = [sys.executable, "-X", "importtime", "-m", "perceiver_deploy.cli", "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert all(verb in result.stdout for verb in VERBS)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"numpy", "onnx", "onnx_ir", "onnxruntime", "openvino", "pydantic", "rich", "torch"}


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_and_does_not_break_a_verb(bundle, tmp_path):
    """stderr is a pipe in the other tests, where no bar is drawn."""
    copy = tmp_path / "copy.bundle"
    shutil.copytree(bundle, copy)
    arguments = ["convert", copy, "--precision", "int8", "--calibration", "digits", "--samples", "64", "--force"]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "perceiver_deploy.cli", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal is an error
            while piece := os.read(ours, 4096):
                shown += piece
        output = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0, shown
    assert b"Calibrating" in shown
    assert b"33 of 33 weight GEMMs" in output


def test_a_path_with_brackets_is_printed_as_it_is(bundle, tmp_path):
    path = tmp_path / "a[red]b.bundle"
    shutil.copytree(bundle, path)
    assert str(path) in call("inspect", path).stdout


@pytest.mark.parametrize(
    "verb",
    [pytest.param(verb, marks=() if verb == "convert" else pytest.mark.slow) for verb in VERBS if verb != "data"],
)
def test_every_verb_has_help_with_an_example(verb):
    result = call(verb, "--help")
    assert result.returncode == 0
    assert "Example: perceiver-deploy" in result.stdout
    assert "--json" in result.stdout


def test_predicts_the_digit_in_a_png_with_every_runtime(bundle):
    for runtime in ("onnxruntime", "openvino", "torch"):
        result = call("run", bundle, "examples/seven.png", "--runtime", runtime, "--json")
        assert result.returncode == 0, result.stderr
        label, share = json.loads(result.stdout)[0]["classes"][0]
        assert label == "7"
        assert share > 0.9


def test_validate_json_is_clean_and_covers_both_runtimes_and_variants(bundle):
    result = call("validate", bundle, "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    judged = {(verdict["runtime"], verdict["variant"]) for verdict in document["verdicts"]}
    assert judged == {(runtime, variant) for runtime in ("onnxruntime", "openvino") for variant in ("fp32", "int8")}
    cases = {verdict["case"] for verdict in document["verdicts"]}
    assert {"opt", "odd", "min", "golden opt", "zeros", "huge", "tiny", "repeated"} <= cases
    assert document["reference"] == "grid"
    assert list(document["tolerances"]) == ["fp32", "int8"]
    assert document["failure"] is None
    assert json.loads(Path(document["report"]).read_text())["tolerances"] == document["tolerances"]


@pytest.mark.slow
def test_validate_judges_real_data_too(bundle):
    result = call("validate", bundle, "--data", "digits", "--json")
    assert result.returncode == 0, result.stderr
    real = [v for v in json.loads(result.stdout)["verdicts"] if v["case"] == "real, digits"]
    assert [v["sizes"] for v in real] == ["pixel_values [8, 3, 8, 8]"] * 4
    refused = call("validate", bundle, "--data", "digits", "--golden")
    assert refused.returncode == 2
    assert "--data digits needs eager" in refused.stderr


def test_validate_exits_3_and_names_the_output_when_a_weight_is_wrong(bundle, tmp_path):
    import onnx
    from onnx import numpy_helper

    from perceiver_deploy.bundle.bundle import changed_bundle

    broken = tmp_path / "broken.bundle"
    shutil.copytree(bundle, broken)
    with changed_bundle(broken) as (staging, opened):
        model = onnx.load(opened.path / "onnx/fp32.onnx")
        weight = next(w for w in model.graph.initializer if w.name == "decoder.projection.weight.transposed")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.001), weight.name))
        staging.path("onnx/fp32.onnx").write_bytes(model.SerializeToString())
        staging.finish(opened.manifest)
    result = call("validate", broken)
    assert result.returncode == 3
    assert "Parity failed" in result.stderr
    assert "'logits' of variant fp32" in result.stderr
    assert "FAIL" in result.stdout
    command = result.stderr.partition("fails again with: ")[2].split()
    again = call(*command[1:], "--json")
    assert again.returncode == 3
    (verdict, *others) = json.loads(again.stdout)["verdicts"]
    assert not verdict["passed"]
    assert verdict["sizes"].startswith("pixel_values [1, ")  # one row of the smallest case
    assert {other["case"] for other in others} == {verdict["case"]}


@pytest.mark.slow
def test_benchmark_writes_raw_samples_of_every_size_and_environment(bundle, tmp_path):
    sizes = ("--batch", 1, "--batch", 4, "--size", "height=8", "--size", "height=12", "--size", "width=8")
    asked = ("--data", "digits", *sizes, "--seconds", "0.1", "--threads", 1)
    result = call("benchmark", bundle, *asked, "-o", tmp_path, "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "benchmark.json").read_text())
    names = [measurement["name"] for measurement in document["measurements"]]
    assert names == ["eager fp32", *(f"{r} {v}" for v in ("fp32", "int8") for r in ("onnxruntime", "openvino"))]
    for measurement in document["measurements"]:
        (accuracy,) = measurement["accuracy"]["metrics"]
        assert accuracy["value"] == pytest.approx(np.mean(accuracy["scores"]))
        assert accuracy["value"] >= 0.97
        low, high = accuracy["drop_interval"]
        assert low <= accuracy["drop"] <= high
        assert measurement["first_seconds"] > 0
        assert [(latency["batch"], latency["sizes"]) for latency in measurement["latencies"]] == [
            (batch, {"height": height, "width": 8}) for height in (8, 12) for batch in (1, 4)
        ]
        for latency in measurement["latencies"]:
            assert len(latency["samples"]) >= 10
            assert latency["p50"] == pytest.approx(np.percentile(latency["samples"], 50))
            assert min(latency["samples"]) <= latency["p50"] <= latency["p90"] <= latency["p99"]
            low, high = latency["speed_up_interval"]
            assert low <= latency["speed_up"] <= high
            assert latency["warm_up"] >= 2
    eager, first, *_ = document["measurements"]
    assert eager["latencies"][0]["peak_bytes"] > 1.2 * first["latencies"][0]["peak_bytes"]  # eager has torch in memory
    assert document["environment"]["packages"]["onnxruntime"]
    assert [ranking["batch"] for ranking in document["rankings"]] == [1, 4, 1, 4]
    assert all(ranking["fastest"] in names for ranking in document["rankings"])
    page = (tmp_path / "benchmark.html").read_text()
    assert all(name in page for name in names)


@pytest.mark.full
def test_benchmark_that_is_worse_than_an_earlier_one_exits_4_and_names_what(bundle, tmp_path):
    asked = ("benchmark", bundle, "--batch", 1, "--seconds", "0.5", "--threads", 1)
    first = call(*asked, "-o", tmp_path / "first")
    assert first.returncode == 0, first.stderr
    report = json.loads((tmp_path / "first/benchmark.json").read_text())
    int8 = next(m for m in report["measurements"] if m["name"] == "onnxruntime int8")
    for latency in int8["latencies"]:  # as if it had been a hundred times as fast
        latency["speed_up_interval"] = [100 * bound for bound in latency["speed_up_interval"]]
        latency["samples"] = [seconds / 100 for seconds in latency["samples"]]
    (tmp_path / "faster.json").write_text(json.dumps(report))
    second = call(*asked, "-o", tmp_path / "second", "--against", tmp_path / "faster.json")
    assert second.returncode == 4, second.stderr
    assert "digits.bundle onnxruntime int8, speed-up at batch 1" in second.stderr
    comparison = json.loads((tmp_path / "second/benchmark.json").read_text())["comparison"]
    assert {d["verdict"] for d in comparison["differences"] if "int8" in d["candidate"]} >= {"worse"}


def test_benchmark_against_what_is_no_report_is_refused_before_measuring(bundle):
    refused = call("benchmark", bundle, "--against", bundle / "bundle.json")
    assert refused.returncode == 1
    assert "is not a report of `perceiver-deploy benchmark`" in refused.stderr


def test_benchmark_refuses_axes_that_are_not_there(bundle):
    refused = call("benchmark", bundle, "--size", "length=5")
    assert refused.returncode == 2
    assert "has no axis 'length'" in refused.stderr
    assert "height, width" in refused.stderr


def test_inspect_shows_axes_operators_and_parameters(bundle):
    document = json.loads(call("inspect", bundle, "--json").stdout)
    assert document["axes"]["height"] == {"min": 1, "opt": 8, "max": None, "multiple_of": 1}
    assert document["inputs"][0]["shape"] == ["batch", 3, "height", "width"]
    assert document["parameters"] == 95268
    operators = {graph["name"]: graph["operators"] for graph in document["graphs"]}
    assert operators["fp32"]["Softmax"] == 6  # one cross-attention, 2 x 2 self-attentions, one decoder
    assert operators["int8"]["QuantizeLinear"] > 0
    onnx_file = json.loads(call("inspect", bundle / "onnx/fp32.onnx", "--json").stdout)
    assert onnx_file["graphs"][0]["operators"] == operators["fp32"]


def test_inspect_shows_what_each_module_takes(bundle):
    of_bundle, of_file = (
        json.loads(call("inspect", path, "--json").stdout)["graphs"][0] for path in (bundle, bundle / "onnx/fp32.onnx")
    )
    modules = {module["module"]: module for module in of_bundle["modules"]}
    assert of_file["modules"] == of_bundle["modules"]
    assert {"encoder.cross_attention", "encoder.self_attends.0", "encoder.self_attends.1"} < modules.keys()
    assert sum(module["flops"] for module in modules.values()) == of_bundle["flops"]
    stored = onnx.load(bundle / "onnx/fp32.onnx").graph.initializer
    assert sum(module["weight_bytes"] for module in modules.values()) == sum(len(each.raw_data) for each in stored)
    shown = " ".join(call("inspect", bundle).stdout.split())
    layer = modules["encoder.self_attends.0"]
    row = f"encoder.self_attends.0 {layer['flops'] / 1e9:,.3f} {100 * layer['flops'] / of_bundle['flops']:.2f} %"
    assert row in shown


@pytest.mark.slow
def test_tune_keeps_what_it_chose_in_the_users_cache_and_shows_every_way(bundle, tmp_path):
    environment = {**os.environ, "PERCEIVER_DEPLOY_CACHE": str(tmp_path / "cache")}
    tuned = call("tune", bundle, "--seconds", "2", "--size", "height=9", "--json", env=environment)
    assert tuned.returncode == 0, tuned.stderr
    assert "Trying onnxruntime fp32" in tuned.stderr
    document = json.loads(tuned.stdout)
    assert document["sizes"] == {"batch": 1, "height": 9, "width": 8}
    assert {finding["variant"] for finding in document["findings"]} == {"fp32", "int8"}
    (file,) = (tmp_path / "cache/tunings").iterdir()
    assert document["file"] == str(file)
    kept = json.loads(file.read_text())
    first = document["findings"][0]
    assert {key: kept["findings"][0][key] for key in ("runtime", "variant", "threads")} == {
        key: first[key] for key in ("runtime", "variant", "threads")
    }
    shown = call("tune", bundle, "--seconds", "0", "--quiet", env=environment)
    assert shown.returncode == 0, shown.stderr
    assert "not tried" in shown.stdout
    assert "Chosen: onnxruntime fp32" in shown.stdout
    assert shown.stderr == ""


def test_doctor_names_the_command_for_each_missing_extra():
    document = json.loads(call("doctor", "--json").stdout)
    extras = {extra["name"]: extra for extra in document["extras"]}
    assert extras["cpu"]["install"] is None
    assert extras["cuda"]["install"].startswith("pip uninstall onnxruntime, then pip install 'perceiver-deploy[cuda]'")
    assert extras["trt"]["install"] == "pip install 'perceiver-deploy[trt]'"
    assert {"onnxruntime", "openvino", "torch"} <= set(document["runtimes"])


def test_bad_input_exits_with_one_paragraph_and_writes_nothing(bundle, tmp_path):
    (tmp_path / "no-image.png").write_text("not an image")
    Image.new("RGB", (4, 4)).save(tmp_path / "image.png")
    weight = onnx.TensorProto(name="w", data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../image.png")
    foreign = onnx.ModelProto(graph=onnx.GraphProto(initializer=[weight]))
    (tmp_path / "foreign.onnx").write_bytes(foreign.SerializeToString())
    changed = tmp_path / "changed.bundle"
    shutil.copytree(bundle, changed)
    (changed / "onnx/fp32.onnx").write_bytes(b"changed")
    before = sorted(tmp_path.rglob("*"))
    cases = [
        (("export", tmp_path / "absent", "-o", tmp_path / "out"), 1, "does not exist"),
        (("export", "digits", "-o", bundle), 1, "--force"),
        (("export", "deepmind/no-such", "-o", tmp_path / "out"), 5, "could not be downloaded"),
        (("run", bundle, tmp_path / "no-image.png"), 1, "cannot be read as an image"),
        (("run", bundle, tmp_path / "absent.png"), 1, "does not exist"),
        (("run", changed, tmp_path / "image.png"), 1, "was changed"),
        (("run", bundle, tmp_path / "image.png", "--variant", "fp16"), 1, "has no variant 'fp16'"),
        (("run", bundle, tmp_path / "image.png", "--runtime", "tpu"), 2, "no runtime 'tpu'"),
        (("validate", tmp_path), 1, "is not a bundle"),
        (("convert", bundle, "--precision", "int8", "--calibration", "digits"), 1, "--force"),
        (("convert", bundle, "--precision", "int8", "--calibration", "absent.npz", "--force"), 1, "absent.npz"),
        (("convert", bundle, "--precision", "int4", "--calibration", "digits"), 2, "int4"),
        (("train", "absent", "-o", tmp_path / "out"), 2, "no recipe 'absent'"),
        (("inspect", tmp_path / "no-image.png"), 1, "is not an ONNX file"),
        (("benchmark", bundle, "--data", "absent"), 2, "no data set 'absent'"),
        (("run", bundle, tmp_path / "image.png", "--runtime", "torch", "--variant", "int8"), 2, "is int8"),
        (("train", "digits", "-o", tmp_path / "image.png"), 1, "image.png"),
        (("train", "digits", "-o", "/proc/x"), 1, "/proc/x"),
        (("export", "digits", "-o", tmp_path / ("x" * 300)), 1, "too long"),
        (("export", "", "-o", tmp_path / "out"), 1, "is empty"),
        (("export", "digits", "-o", tmp_path / "out", "--opset", "24"), 2, "24 is not in the range 17<=x<=23"),
        (
            ("export", "digits", "-o", tmp_path / "out", "--opset", "23", "--for", "tensorrt"),
            2,
            "reads opsets up to 22",
        ),
        (("inspect", tmp_path / "foreign.onnx"), 1, "reads weights from '../image.png', outside its folder"),
        (("tune", bundle, "--size", "depth=3"), 2, "no axis 'depth'"),
        (("tune", bundle, "--size", "height"), 2, "'height' is not of the form AXIS=N"),
        (("inspect", bundle, "--time", "--device", "l4"), 2, "give one of them"),
        (("inspect", bundle, "--threads", "2"), 2, "--threads is of --time"),
        (("benchmark", bundle, "--latency-bound", "0.1"), 2, "give --scenarios too"),
    ]
    assert "No such command" in call("nonsense").stderr
    for arguments, code, words in cases:
        result = CliRunner().invoke(main, [*map(str, arguments), "--quiet"])  # a process for each would take a minute
        assert result.exit_code == code, (arguments, result.stderr)
        assert words in result.stderr, (arguments, result.stderr)
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_debug_shows_the_stack_trace(tmp_path):
    result = call("validate", tmp_path, "--debug")
    assert "Traceback" in result.stderr
    assert result.returncode == 1


def test_telemetry_of_onnxruntime_is_off_unless_the_user_set_it():
    program = "import perceiver_deploy, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, expected in ((None, "1"), ("0", "0")):
        environment = {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
        result = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == expected
