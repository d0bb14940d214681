"""Where files are kept that can be had again: fetched data, compiled models, what tuning measured."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def cache_directory() -> Path:
    """`$PERCEIVER_DEPLOY_CACHE`, else `perceiver-deploy` in `$XDG_CACHE_HOME` or in `~/.cache`. May not exist yet."""
    if own := os.environ.get("PERCEIVER_DEPLOY_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "perceiver-deploy"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, then rename it: another process sees all of it or nothing.

    Raises:
        OSError: it could not be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def make_room(folder: Path, pattern: str, most_bytes: int, needed: int) -> None:
    """Delete files of a folder, those used least recently first, until `needed` more bytes fit into `most_bytes`."""
    found = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob(pattern))
    total = sum(size for _, size, _ in found) + needed
    for _, size, path in found:
        if total <= most_bytes:
            break
        path.unlink(missing_ok=True)
        total -= size
