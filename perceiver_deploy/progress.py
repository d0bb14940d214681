"""Progress of long work: steps as log lines, loops as a bar with rate and estimate, both on stderr.

Quiet unless the command line turned it on, so that a program embedding the package prints nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger("perceiver_deploy")


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield the items and show how far, how fast and how long to go, when stderr is a terminal and logs are shown."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f}/s")  # None until two items are done

    console = Console(stderr=True)
    if not (log.isEnabledFor(logging.INFO) and console.is_terminal):
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)


@contextmanager
def only_errors(logger: str | None = None) -> Iterator[None]:
    """Let a library's logger, or without a name the root logger, tell errors only."""
    quieted = logging.getLogger(logger)
    level = quieted.level
    quieted.setLevel(logging.ERROR)
    try:
        yield
    finally:
        quieted.setLevel(level)


@contextmanager
def count_bytes(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how many bytes are done; shown like `track`."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not (log.isEnabledFor(logging.INFO) and console.is_terminal):
        yield lambda done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.update(task, completed=done)
