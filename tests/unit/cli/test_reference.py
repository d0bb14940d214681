"""The reference of the command line is what Click knows."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PROGRAM = Path(__file__).parents[3] / "docs/make_cli_reference.py"


def test_reference_of_the_command_line_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_cli_reference", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    text = program.reference()
    assert program.PAGE.read_text() == text, "run: make reference"
    assert "## benchmark" in text
    assert "| `--against RESULT.json` |" in text
