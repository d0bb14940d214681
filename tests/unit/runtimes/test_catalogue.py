"""The catalogue of runtimes is complete: what users choose from, what is opened and what C++ knows follow from it."""

from __future__ import annotations

import importlib
import runpy
from dataclasses import fields
from pathlib import Path
from typing import get_args

import click
import pytest

from perceiver_deploy.bundle.manifest import RuntimeName
from perceiver_deploy.cli.main import main
from perceiver_deploy.errors import UsageError
from perceiver_deploy.runtimes.catalogue import (
    CPU_RUNTIMES,
    EAGER,
    GPU_RUNTIMES,
    RUNTIMES,
    VARIANT_RUNTIMES,
    SettingName,
    runtime_named,
)
from perceiver_deploy.runtimes.nvidia.families import FAMILIES
from perceiver_deploy.runtimes.nvidia.requirements import missing_pieces
from perceiver_deploy.runtimes.settings import RuntimeSettings

ROOT = Path(__file__).parents[3]


def test_every_name_that_a_manifest_may_have_is_a_runtime():
    assert set(get_args(RuntimeName)) <= RUNTIMES.keys()
    assert {*CPU_RUNTIMES, *GPU_RUNTIMES, EAGER} == RUNTIMES.keys()
    for name, record in RUNTIMES.items():
        assert record.name == name
        assert set(record.runs) <= set(VARIANT_RUNTIMES)
        assert record.device == ("gpu" if name in GPU_RUNTIMES else "cpu")


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_home_of_a_runtime_opens_stages(name):
    assert callable(importlib.import_module(RUNTIMES[name].home).open_stages)


@pytest.mark.parametrize("name", GPU_RUNTIMES)
def test_what_a_runtime_on_a_gpu_lacks_can_be_asked(name):
    assert all(isinstance(piece, str) for piece in missing_pieces(name))


def test_engines_are_of_runtimes():
    for name, family in FAMILIES.items():
        assert (family.module, family.package) == (RUNTIMES[name].module, RUNTIMES[name].package)


def test_settings_are_those_of_the_class():
    assert {*get_args(SettingName), "keep_compiled"} == {field.name for field in fields(RuntimeSettings)}


def choices(verb: str, option: str) -> list[str]:
    command = main.get_command(click.Context(main), verb)
    assert command is not None
    (found,) = (parameter for parameter in command.params if option in parameter.opts)
    assert isinstance(found.type, click.Choice)
    return list(found.type.choices)


def test_choices_of_the_command_line_are_the_catalogue_s():
    assert choices("export", "--for") == list(VARIANT_RUNTIMES)
    assert set(choices("build", "--engine")) == FAMILIES.keys()


def test_the_c_plus_plus_table_is_up_to_date():
    program = runpy.run_path(str(ROOT / "cpp" / "make_runtimes.py"))
    assert program["TABLE"].read_text() == program["table"](), "run: make schema"


def test_the_table_of_the_documentation_is_the_catalogue():
    rows = [line for line in (ROOT / "docs" / "design.md").read_text().splitlines() if line.startswith("| `")]
    for record in RUNTIMES.values():
        taken = ", ".join(f"`{name}`" for name in record.runs) or "none: the source model"
        assert f"| `{record.name}` | {record.device.upper()} | {taken} |" in rows


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="There is no runtime 'tvm'; expected auto, torch, onnxruntime"):
        runtime_named("tvm")
