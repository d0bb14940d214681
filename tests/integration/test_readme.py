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
_TESTS = {"test", "test-slow", "test-full", "test-gpu", "test-processors", "test-pythons", "test-cpp"}
MAKE_TARGETS = {"demo", "check", "site", "tables"} | _TESTS


DOCS = sorted((ROOT / "docs").glob("*.md"))
NEEDS_A_GPU = "<!-- needs a GPU -->\n"
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def blocks(language, pages, *, gpu=False):
    """Code blocks of pages, in order: those that run here, or with `gpu` those that need one."""
    found = []
    for page in pages:
        for match in re.finditer(rf"({NEEDS_A_GPU})?```{language}\n(.*?)```", page.read_text(), re.DOTALL):
            if bool(match[1]) == gpu:
                found.append(match[2])
    return found


def commands(pages):
    """Each command of the pages once, comments left out."""
    lines = "".join(blocks("sh", pages)).replace("\\\n", "").splitlines()
    found = dict.fromkeys(line.partition("#")[0].strip() for line in lines)
    return [line for line in found if line and not line.startswith(("make ", "perceiver-deploy train"))]


def last_line(program, folder):
    """What a program prints last."""
    result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the examples, where the commands of the README and then of the docs have been run in order."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", folder / "examples")
    results = {
        command: subprocess.run(command, shell=True, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
        for command in commands([ROOT / "README.md", *DOCS])
    }
    return folder, results


@pytest.mark.slow
def test_every_command_of_readme_and_docs_exits_0(workplace):
    _, results = workplace
    if shutil.which("perceiver-deploy", path=str(Path(sys.executable).parent)) is None:
        pytest.fail("perceiver-deploy is not installed beside this Python")
    assert len(results) >= 20
    for command, result in results.items():
        if "tensorrt-rtx" in command and result.returncode == 5:
            pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
        assert result.returncode == 0, f"{command}\n{result.stderr}"


@pytest.mark.slow
def test_the_python_programs_of_the_readme_run_after_its_commands(workplace):
    folder, _ = workplace
    (program,) = blocks("python", [ROOT / "README.md"])
    assert last_line(program, folder) == "(1, 10)"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "last"), [("running", "(1, 10)"), ("stages", "(1, 2, 262)")])
def test_the_first_program_of_a_page_prints_the_shape_that_it_states(workplace, page, last):
    folder, _ = workplace
    program = blocks("python", [ROOT / f"docs/{page}.md"])[0]
    assert program.endswith(f"# {last}\n")
    assert last_line(program, folder) == last


@pytest.mark.slow
def test_the_python_programs_of_the_docs_run_after_the_commands(workplace):
    folder, _ = workplace
    programs = blocks("python", DOCS)
    assert len(programs) >= 4
    for program in programs:
        result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0, f"{program}\n{result.stderr}"
    for program in blocks("python", DOCS, gpu=True):
        compile(program, "docs", "exec")


def test_the_cpp_program_of_the_docs_compiles(tmp_path):
    (program,) = blocks("cpp", DOCS)
    include, _, body = program.partition("\n\n")
    parameters = "const std::vector<std::uint8_t>& pixels, std::int64_t height, std::int64_t width"
    source = tmp_path / "program.cpp"
    source.write_text(f"{include}\nauto example({parameters}) {{\n{body}return logits[0];\n}}\n")
    compiler = shutil.which("g++") or pytest.skip("there is no g++")
    command = [compiler, "-std=c++17", "-fsyntax-only", "-I", ROOT / "cpp/include", source]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_docs_build_as_a_site_without_a_warning_that_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path]
    result = subprocess.run(
        command, cwd=ROOT, env={**ENVIRONMENT, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr + result.stdout
    pages = {path.parent.name: path.read_text() for path in tmp_path.rglob("index.html")}
    assert pages.keys() >= {page.stem for page in DOCS} - {"index"}
    for name, text in pages.items():
        assert not re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=[\"']?https?://", text), name
    assert (tmp_path / "files/perceiver_deploy/benchmark.schema.json").exists()


def test_make_targets_that_the_pages_name_exist():
    named = {target for page in PAGES for target in re.findall(r"\bmake ([a-z][a-z-]+)\b`", page.read_text())}
    assert named
    assert named <= MAKE_TARGETS
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in MAKE_TARGETS)


def test_train_command_of_the_docs_names_a_recipe():
    from perceiver_deploy.train.catalogue import RECIPES

    (recipe,) = re.findall(r"perceiver-deploy train (\S+) -o", "".join(blocks("sh", [ROOT / "README.md", *DOCS])))
    assert recipe in RECIPES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_tables_and_plot_agree_with_the_measured_results():
    result = subprocess.run(
        [sys.executable, ROOT / "benchmarks/readme_tables.py", "--check"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
