"""Programs around the C++ library: its own tests under sanitizers, the examples, and a consumer of the installation."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from perceiver_deploy import load
from perceiver_deploy.cli.main import main
from tests.cpp.conftest import BUILD, ROOT, built

Run = Callable[..., "subprocess.CompletedProcess[str]"]
FRAMES = [ROOT / f"tests/data/flow/cat_{name}.png" for name in ("first", "second")]
FEWER_CYCLES = {"asan": "100", "tsan": "10"}


@pytest.mark.parametrize("preset", ["release", "asan", "tsan"])
@pytest.mark.parametrize("program", ["unit_tests", "api_tests"])
def test_the_librarys_own_tests_pass(program: str, preset: str, run: Run, shared_bundle: Callable[[str], Path]) -> None:
    variables = {"PERCEIVER_DEPLOY_TEST_BUNDLE": str(shared_bundle("fourier"))}
    if preset in FEWER_CYCLES:  # the sanitizer itself finds what would leak
        variables["PERCEIVER_DEPLOY_TEST_CYCLES"] = FEWER_CYCLES[preset]
    if preset == "tsan":
        variables["TSAN_OPTIONS"] = f"suppressions={ROOT / 'cpp/tests/tsan_suppressions.txt'}"
    result = run(built(preset, f"tests/{program}"), **variables)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert "[  PASSED  ]" in result.stdout


def test_ctest_needs_no_python_and_says_that_what_needs_a_bundle_was_skipped(run: Run) -> None:
    built("release", "tests/unit_tests")
    without = {"PERCEIVER_DEPLOY_TEST_BUNDLE": ""}
    result = run("ctest", "--test-dir", BUILD / "release", **without)
    assert result.returncode == 0, result.stdout[-4000:]
    assert re.search(r"unit_tests \.+ +Passed", result.stdout)
    assert re.search(r"api_tests \.+\*+Skipped", result.stdout)


def test_only_the_abi_is_exported_and_the_stripped_library_is_small(run: Run, tmp_path: Path) -> None:
    library = built("release", "libperceiver_deploy.so")
    names = [line.split()[-1] for line in run("nm", "--dynamic", "--defined-only", library).stdout.splitlines()]
    functions = [name.partition("@")[0] for name in names if not name.startswith("PERCEIVER_DEPLOY_")]
    assert len(functions) >= 20
    assert all(name.startswith("pd_") for name in functions), functions
    stripped = tmp_path / "stripped.so"
    assert run("strip", library, "-o", stripped).returncode == 0
    assert stripped.stat().st_size < 1_000_000


def test_the_image_example_classifies_a_real_digit(run: Run, raw_bundle: Callable[[str], Path]) -> None:
    program, seven = built("release", "examples/classify"), ROOT / "examples/seven.png"
    result = run(program, raw_bundle("digits"), seven)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{seven}:  7 ")
    absent = run(program, raw_bundle("digits"), "absent.png")
    assert (absent.returncode, absent.stderr) == (1, "Error: absent.png cannot be read: Unable to open file\n")
    assert run(program).returncode == 2
    missing = run(program, raw_bundle("digits"), seven, PERCEIVER_DEPLOY_ONNXRUNTIME="/absent.so")
    assert missing.returncode == 5
    assert "onnxruntime cannot be loaded" in missing.stderr


def test_the_live_loop_prints_the_flow_of_each_pair_of_frames(run: Run, raw_bundle: Callable[[str], Path]) -> None:
    frames = [np.asarray(Image.open(path).convert("RGB").resize((48, 32))) for path in FRAMES]
    stream = b"".join(b"P6\n48 32\n255\n" + frame.tobytes() for frame in [*frames, frames[1]])
    program = built("release", "examples/flow_loop")
    result = run(program, raw_bundle("flow"), standard_input=stream)
    assert result.returncode == 0, result.stderr
    with load(raw_bundle("flow"), "onnxruntime") as session:
        for line, pair in zip(result.stdout.splitlines(), (frames, [frames[1], frames[1]]), strict=True):
            across, down = session.run({"frames_uint8": np.stack(pair)[None]})["flow"].mean(axis=(0, 1, 2))
            words = line.split()
            assert float(words[2]) == pytest.approx(across, abs=0.006)  # two digits are printed
            assert float(words[5]) == pytest.approx(down, abs=0.006)
    broken = run(program, raw_bundle("flow"), standard_input=stream[:-5])
    assert (broken.returncode, broken.stderr) == (1, "Error: The input ends inside a frame.\n")


def test_the_c_example_says_what_python_says_of_a_text(run: Run, raw_bundle: Callable[[str], Path]) -> None:
    text = "A warm film — and utterly dull at the end."
    result = run(built("release", "examples/sentiment"), raw_bundle("sentiment"), text)
    assert result.returncode == 0, result.stderr
    content = np.frombuffer(text.encode(), np.uint8)[None]
    with load(raw_bundle("sentiment"), "onnxruntime") as session:
        logits = session.run({"utf8": content, "attention_mask": np.ones(content.shape, np.int64)})["logits"]
    labels = ("negative", "positive")
    assert result.stdout.strip() == labels[int(logits.argmax())]


def test_an_installation_is_found_by_cmake_and_pkg_config(
    run: Run, raw_bundle: Callable[[str], Path], tmp_path: Path
) -> None:
    built("release", "libperceiver_deploy.so")
    prefix = tmp_path / "prefix"
    assert run("cmake", "--install", BUILD / "release", "--prefix", prefix).returncode == 0
    examples = shutil.copytree(ROOT / "cpp/examples", tmp_path / "examples")
    search = f"-DCMAKE_PREFIX_PATH={prefix};{BUILD / 'dependencies/usr'}"
    configured = run("cmake", "-G", "Ninja", "-S", examples, "-B", tmp_path / "cmake", search)
    assert configured.returncode == 0, configured.stderr
    assert run("cmake", "--build", tmp_path / "cmake").returncode == 0
    assert run(tmp_path / "cmake/classify", raw_bundle("digits"), ROOT / "examples/seven.png").returncode == 0
    (config,) = prefix.rglob("pkgconfig")
    flags = run("pkg-config", "--cflags", "--libs", "perceiver_deploy", PKG_CONFIG_PATH=str(config)).stdout.split()
    program = tmp_path / "sentiment"
    compiled = run("cc", examples / "sentiment.c", "-o", program, *flags)
    assert compiled.returncode == 0, compiled.stderr
    ran = run(program, raw_bundle("sentiment"), "dull", LD_LIBRARY_PATH=str(config.parent))
    assert ran.returncode == 0, ran.stderr


def test_cpp_dir_prints_the_sources_and_the_library_to_load(onnxruntime_library: Path) -> None:
    folder = CliRunner().invoke(main, ["cpp-dir"])
    assert (Path(folder.stdout.strip()) / "include/perceiver_deploy/perceiver_deploy.h").is_file()
    assert CliRunner().invoke(main, ["cpp-dir", "--onnxruntime"]).stdout.strip() == str(onnxruntime_library)


def test_dependencies_are_fetched_once_and_a_missing_tool_is_named(run: Run, tmp_path: Path) -> None:
    script = ROOT / "cpp/fetch_dependencies.sh"
    assert run("sh", script).returncode == 2
    dependencies = BUILD / "dependencies"
    if not dependencies.is_dir():
        built("", "dependencies")
    before = (dependencies / "complete").stat().st_mtime_ns
    assert run("sh", script, dependencies, "forky").returncode == 0
    assert (dependencies / "complete").stat().st_mtime_ns == before
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "mkdir", "cat"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    result = run("sh", script, tmp_path / "new", PATH=str(tmp_path / "bin"))
    assert result.returncode == 5
    assert "apt-get is not here" in result.stderr
    assert not list((tmp_path / "new").iterdir())
