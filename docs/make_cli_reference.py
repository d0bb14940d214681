"""Write docs/cli.md, the reference of the command line, from Click's description of each verb.

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
    context = click.Context(main, info_name="perceiver-deploy")
    commands = {name: main.get_command(context, name) for name in main.list_commands(context)}
    overview = [f"| [`{name}`](#{name}) | {command.get_short_help_str(200)} |" for name, command in commands.items()]
    parts = [
        "# Command line",
        "Written by `python docs/make_cli_reference.py`. Every verb also has `--json` (one JSON document on stdout), "
        "`--quiet` (no progress), `--debug` (stack trace of an error) and `--help`. Exit codes: 0 ok, 1 error, 2 wrong "
        "usage, 3 parity failed, 4 a stated bound was not met, 5 a required package, file or device is missing.",
        "\n".join(["| verb | what it does |", "|---|---|", *overview]),
    ]
    for name, command in commands.items():
        parts += _verb(command, click.Context(command, info_name=name, parent=context))
    return "\n\n".join(parts) + "\n"


def _verb(command: click.Command, context: click.Context) -> list[str]:
    options = [
        option
        for option in command.get_params(context)
        if isinstance(option, click.Option) and not _COMMON & {*option.opts}
    ]
    usage = f"    {_usage(command, context, options)}"
    parts = [f"## {context.info_name}", usage, inspect.cleandoc(command.help or "")]
    if options:
        rows = [f"| `{_spelling(option)}` | {_meaning(option)} | {_default(option)} |" for option in options]
        parts.append("\n".join(["| option | meaning | default |", "|---|---|---|", *rows]))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            parts += [part.replace("## ", "### ", 1) for part in _verb(inner, click.Context(inner, context, name))]
    if command.epilog:
        parts.append(f"Example: `{command.epilog.removeprefix('Example: ')}`")
    return parts


def _usage(command: click.Command, context: click.Context, options: list[click.Option]) -> str:
    """`perceiver-deploy convert BUNDLE --precision PRECISION [options]`."""
    arguments = [p.metavar or (p.name or "").upper() for p in command.params if isinstance(p, click.Argument)]
    required = [f"{max(option.opts, key=len)} {_value(option)}" for option in options if option.required]
    verbs = ["COMMAND"] if isinstance(command, click.Group) else []
    return " ".join([context.command_path, *verbs, *arguments, *required, "[options]"])


def _spelling(option: click.Option) -> str:
    """`-o, --output PATH`."""
    return f"{', '.join(sorted(option.opts, key=len))} {_value(option)}".rstrip()


def _value(option: click.Option) -> str:
    """What stands for the value: nothing for a flag, the one choice, or a word in capitals."""
    if option.is_flag:
        return ""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice) and len(option.type.choices) == 1:
        return str(option.type.choices[0])
    if isinstance(option.type, click.Path):
        return "PATH"
    name = max(option.opts, key=len).removeprefix("--")
    if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
        return "SECONDS" if name.endswith("seconds") else "N"
    return name.upper()


def _meaning(option: click.Option) -> str:
    """The help text, then the choices or the range."""
    text = " ".join((option.help or "").split())
    if isinstance(option.type, click.Choice) and len(option.type.choices) > 1:
        text += f" One of {', '.join(f'`{choice}`' for choice in option.type.choices)}."
    if isinstance(option.type, click.IntRange) and option.type.max is not None:
        text += f" From {option.type.min} to {option.type.max}."
    return text.replace("|", "\\|")


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    if not option.show_default:
        return ""
    return f"`{option.default:g}`" if isinstance(option.default, float) else f"`{option.default}`"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
