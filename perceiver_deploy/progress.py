"""Progress of long work: steps as log lines, loops as a bar with rate and estimate, both on stderr.

Quiet unless the command line turned it on, so that a program embedding the package prints nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger("perceiver_deploy")


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield the items and show how far, how fast and how long to go, when stderr is a terminal and logs are shown."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (log.isEnabledFor(logging.INFO) and console.is_terminal):
        yield from items
        return
    rate = TextColumn("{task.speed:.1f}/s" if total else "")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)
