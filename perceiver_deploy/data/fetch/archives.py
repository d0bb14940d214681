"""Reading members of archives (zip, tar, deb) without extracting them."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from perceiver_deploy.errors import InputError

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_SIZE = 60


def read_members(archive: Path | bytes, pattern: str = "*") -> Iterator[tuple[str, bytes]]:
    """Path and content of the regular files of an archive whose path matches, in the archive's order.

    `archive` is a zip (a wheel is one), a tar, compressed or not, or a Debian package; bytes when it was itself a
    member. Links and directories are left out. In a pattern `*` matches `/` too.

    Raises:
        InputError: not such an archive, a broken one, or one with a member whose path leads out of it.
    """
    name = "An archive" if isinstance(archive, bytes) else str(archive)
    try:
        with io.BytesIO(archive) if isinstance(archive, bytes) else archive.open("rb") as file:
            yield from _members(file, pattern)
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, ValueError) as error:
        raise InputError(f"{name} cannot be read ({error}); expected a sound zip, tar or Debian package.") from error


def _members(file: BinaryIO, pattern: str) -> Iterator[tuple[str, bytes]]:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                path = _inside(entry.filename)
                if not entry.is_dir() and fnmatchcase(path, pattern):
                    yield path, archive.read(entry)
        return
    file.seek(0)
    if file.read(len(_AR_MAGIC)) == _AR_MAGIC:
        _seek_data(file)
    else:
        file.seek(0)
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        for member in tar:
            path = _inside(member.name)
            if member.isreg() and fnmatchcase(path, pattern):
                content = tar.extractfile(member)
                assert content is not None  # a regular file has one
                yield path, content.read()


def _inside(path: str) -> str:
    """A member's path without a leading `./`."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path:
        raise ValueError(f"its member {path!r} leads out of it")
    return str(parts)


def _seek_data(file: BinaryIO) -> None:
    """Go to the first byte of `data.tar.*` in a Debian package, an `ar` archive: deb(5)."""
    while len(header := file.read(_AR_HEADER_SIZE)) == _AR_HEADER_SIZE:
        if header.startswith(b"data.tar"):
            return
        size = int(header[48:58])
        file.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("no data.tar in it")
