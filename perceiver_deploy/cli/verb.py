"""Common to all verbs: `--json`, `--debug`, `--quiet`, exit codes, and a clean stdout."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.errors import PerceiverDeployError

_MINIMUM_WIDTH = 120


@dataclass(frozen=True)
class Outcome:
    """A verb's result: a JSON document, how to show it in a terminal, and the error behind a nonzero exit code."""

    document: Any
    show: Callable[[Console], None]
    failure: PerceiverDeployError | None = None


class Verb(click.Command):
    """A command whose callback returns an `Outcome`. `extra` names the extra that brings what it imports."""

    def __init__(self, name: str, *, extra: str, example: str, **kwargs: Any) -> None:
        super().__init__(name, epilog=f"Example: {example}", **kwargs)
        self.extra = extra
        self.params += [
            click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document on stdout."),
            click.Option(["--quiet"], is_flag=True, help="Print no progress on stderr."),
            click.Option(["--debug"], is_flag=True, help="Show the stack trace of an error."),
        ]

    def invoke(self, ctx: click.Context) -> None:
        """Run the callback, print its outcome, and exit with its code."""
        from perceiver_deploy.errors import PerceiverDeployError, requires

        as_json, quiet, debug = (ctx.params.pop(name) for name in ("as_json", "quiet", "debug"))
        _log_to_stderr(quiet=quiet)
        try:
            with _stdout_to_stderr(), requires(self.extra, f"perceiver-deploy {self.name}"):
                outcome: Outcome = super().invoke(ctx)
        except PerceiverDeployError as error:
            if debug:
                raise
            _fail(ctx, error)
        except OSError as error:
            if debug:
                raise
            place = error.filename or "A file"
            _fail(ctx, PerceiverDeployError(f"{place} cannot be read or written: {error.strerror or error}."))
        if as_json:
            click.echo(json.dumps(outcome.document, indent=2, allow_nan=False))
        else:
            outcome.show(_console())
        if outcome.failure is not None:
            _fail(ctx, outcome.failure)


def _fail(ctx: click.Context, error: PerceiverDeployError) -> None:
    click.echo(f"Error: {error}", err=True)
    ctx.exit(error.exit_code)


def _console() -> Console:
    from rich.console import Console

    # Paths are printed as they are: no markup in brackets, no line breaks inside.
    terminal = sys.stdout.isatty()
    return Console(markup=False, highlight=False, soft_wrap=True, width=None if terminal else _MINIMUM_WIDTH)


def _log_to_stderr(*, quiet: bool) -> None:
    logger = logging.getLogger("perceiver_deploy")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers[:] = [handler]
    logger.propagate = False  # libraries set up the root logger as they like
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send to stderr what libraries print on stdout, from Python or from C++."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C and C++ hold back would come out after stdout is restored
        os.dup2(saved, 1)
        os.close(saved)
