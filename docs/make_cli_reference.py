"""Write docs/cli.md, the reference of the command line, from what Click knows of every verb.

python docs/make_cli_reference.py
"""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from perceiver_deploy.cli.main import main

PAGE = Path(__file__).parent / "cli.md"
_COMMON = {"--json", "--quiet", "--debug", "--help"}


def reference() -> str:
    """The page."""
    parts = [
        "# Command line",
        "Made by `python docs/make_cli_reference.py`. Every verb also has `--json` (one JSON document on stdout), "
        "`--quiet`, `--debug` and `--help`. Exit codes: 0 ok, 1 error, 2 usage, 3 parity failed, 4 a stated bound was "
        "not kept, 5 something needed is not here.",
    ]
    context = click.Context(main, info_name="perceiver-deploy")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        parts += _verb(command, click.Context(command, info_name=name, parent=context))
    return "\n\n".join(parts) + "\n"


def _verb(command: click.Command, context: click.Context) -> list[str]:
    parts = [f"## {context.info_name}", f"    {command.get_usage(context).removeprefix('Usage: ')}"]
    parts.append(inspect.cleandoc(command.help or ""))
    records = [
        record
        for parameter in command.get_params(context)
        if not _COMMON & {*parameter.opts} and (record := parameter.get_help_record(context)) is not None and record[1]
    ]
    if records:
        rows = [f"| `{_cell(option)}` | {_cell(text)} |" for option, text in records]
        parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            parts += [part.replace("## ", "### ", 1) for part in _verb(inner, click.Context(inner, context, name))]
    if command.epilog:
        parts.append(f"Example: `{command.epilog.removeprefix('Example: ')}`")
    return parts


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
