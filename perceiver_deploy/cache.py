"""The user's cache: what can be had again, such as fetched data, compiled models and what tuning measured."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from perceiver_deploy.progress import log


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


class Store:
    """One folder of the cache: a file for each key, read whole or not at all, and written whole.

    With `most_bytes`, files that were used least recently make room for new ones.
    """

    def __init__(self, folder: str, suffix: str, most_bytes: int | None = None) -> None:
        self._folder, self._suffix, self.most_bytes = folder, suffix, most_bytes

    @property
    def folder(self) -> Path:
        """Where the files are. May not exist yet."""
        return cache_directory() / self._folder

    def path(self, key: str) -> Path:
        """The file of a key, which may not be there."""
        return self.folder / f"{key}{self._suffix}"

    def read(self, key: str) -> bytes | None:
        """What is kept under a key; None where nothing is.

        Raises:
            OSError: it cannot be read.
        """
        path = self.path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        self.mark_used(path)
        return content

    def write(self, key: str, content: bytes) -> Path:
        """Keep something under a key.

        Raises:
            OSError: the cache cannot be written; nothing is left behind.
        """
        if self.most_bytes is not None:
            self._make_room(len(content), self.most_bytes)
        path = self.path(key)
        write_whole(path, content)
        return path

    def keep(self, key: str, content: bytes, what: str) -> None:
        """As `write`; a cache that cannot be written is only said."""
        try:
            self.write(key, content)
        except OSError as error:
            log.info("%s is not kept for the next time: %s", what, error)

    def find(self, start: str) -> list[Path]:
        """The files of all keys that begin so."""
        return sorted(self.folder.glob(f"{start}*{self._suffix}"))

    def mark_used(self, path: Path) -> None:
        """Let a file be among the last to make room, where files have to."""
        if self.most_bytes is not None:
            with contextlib.suppress(OSError):  # a cache that can only be read
                path.touch()

    def _make_room(self, needed: int, most_bytes: int) -> None:
        """Delete files, those used least recently first, until `needed` more bytes fit."""
        found = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self.find(""))
        total = sum(size for _, size, _ in found) + needed
        for _, size, path in found:
            if total <= most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
