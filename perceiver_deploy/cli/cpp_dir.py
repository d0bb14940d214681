"""`perceiver-deploy cpp-dir`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.verb import Outcome, Verb


@click.command(
    "cpp-dir",
    cls=Verb,
    short_help="Show the folder of the C++ library's sources.",
    extra="cpu",
    example="perceiver-deploy cpp-dir",
)
@click.option("--onnxruntime", is_flag=True, help="Print the path of the installed onnxruntime library instead.")
def command(onnxruntime: bool) -> Outcome:
    """Show the folder with the C++ library's headers, sources, CMake files and examples.

    `--onnxruntime` prints the library for C++ programs to load: set PERCEIVER_DEPLOY_ONNXRUNTIME to it.
    """
    from perceiver_deploy.runtimes.native_files import cpp_directory, onnxruntime_library

    found: Path = onnxruntime_library() if onnxruntime else cpp_directory()
    return Outcome(str(found), lambda console: console.print(str(found)))
