"""Every command and program in the README and docs runs; every link leads somewhere; every figure is measured."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKE_TARGETS = {"demo", "test", "test-full", "test-gpu", "test-cpp", "check", "tables"}


def blocks(language):
    """Code blocks of the README, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the examples, where the README's commands have been run in order; their results by command."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", folder / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    results = {}
    for line in "".join(blocks("sh")).splitlines():
        command = line.partition("#")[0].strip()
        if command and not command.startswith("make ") and not command.startswith("perceiver-deploy train"):
            results[command] = subprocess.run(
                command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
            )
    return folder, results


def test_every_command_of_the_readme_exits_0(workplace):
    _, results = workplace
    if shutil.which("perceiver-deploy", path=str(Path(sys.executable).parent)) is None:
        pytest.fail("perceiver-deploy is not installed beside this Python")
    assert len(results) >= 7
    for command, result in results.items():
        if "tensorrt-rtx" in command and result.returncode == 5:
            pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
        assert result.returncode == 0, f"{command}\n{result.stderr}"


def test_the_python_programs_of_the_readme_run_after_its_commands(workplace):
    folder, _ = workplace
    for program, last in zip(blocks("python"), ("(1, 10)", "(1, 2, 262)"), strict=True):
        result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[-1] == last


def test_make_targets_that_the_pages_name_exist():
    named = {target for page in PAGES for target in re.findall(r"\bmake ([a-z][a-z-]+)\b`", page.read_text())}
    assert named
    assert named <= MAKE_TARGETS
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in MAKE_TARGETS)


def test_train_command_of_the_readme_names_a_recipe():
    from perceiver_deploy.train.recipes import RECIPES

    (recipe,) = re.findall(r"perceiver-deploy train (\S+) -o", "".join(blocks("sh")))
    assert recipe in RECIPES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_tables_agree_with_the_measured_results():
    result = subprocess.run(
        [sys.executable, ROOT / "benchmarks/readme_tables.py", "--check"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
