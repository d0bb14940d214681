"""The bundle: one directory of plain files, read with checked digests and written all or nothing.

A change is made in a staging directory beside the bundle (files that stay are hard links) and takes effect by
one rename, so a run killed at any moment leaves the old bundle, or none where none was.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from perceiver_deploy.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, FileEntry, Manifest, Variant, exact_file
from perceiver_deploy.bundle.onnx_header import external_files
from perceiver_deploy.errors import BundleError
from perceiver_deploy.strict import first_problem

REPORTS = "reports"
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@dataclass(frozen=True)
class Bundle:
    """A bundle opened for reading. Its manifest is valid; each file is checked when it is asked for."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read and check `bundle.json`.

        Raises:
            BundleError: no bundle there, a newer schema, or a manifest that breaks the schema.
        """
        path = Path(path)
        try:
            text = (path / MANIFEST_NAME).read_text(encoding="utf-8")
            document = json.loads(text)
        except (FileNotFoundError, NotADirectoryError):
            raise BundleError(
                f"{path} is not a bundle: it has no {MANIFEST_NAME}. "
                "Make one with: perceiver-deploy export CHECKPOINT -o BUNDLE"
            ) from None
        except OSError as error:
            raise BundleError(f"{path / MANIFEST_NAME} cannot be read: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{path / MANIFEST_NAME} is not JSON: {error}. Export the checkpoint again.") from None
        version = document.get("schema_version") if isinstance(document, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema_version {version}; this perceiver-deploy reads up to {SCHEMA_VERSION}. "
                "Upgrade perceiver-deploy, or export the bundle again with this version."
            )
        try:
            return cls(path, Manifest.model_validate(document))
        except ValidationError as error:
            raise BundleError(
                f"{path / MANIFEST_NAME} is not a valid manifest: {first_problem(error, 'manifest')}."
            ) from None

    def file(self, relative: str) -> Path:
        """Path of a file of the bundle whose size and digest were just checked, and those of a model's external data.

        Raises:
            BundleError: the file is not listed, missing, changed, or lies outside the bundle; so for each file that a
                model reads its weights from.
        """
        entry = self.manifest.files.get(relative)
        if entry is None:
            raise BundleError(f"{self.path} does not list {relative!r}; it has {', '.join(self.manifest.files)}.")
        path = self.path / relative
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise BundleError(f"{relative!r} in {self.path} is a link that leaves the bundle. Replace it by the file.")
        try:
            digest, size = sha256(path), path.stat().st_size
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}. Export the checkpoint again.") from error
        if digest != entry.sha256:
            raise BundleError(
                f"{path} was changed after the bundle was written: sha256 is {digest[:12]}..., the manifest says "
                f"{entry.sha256[:12]}.... Restore the file or export the checkpoint again."
            )
        if size != entry.bytes:
            raise BundleError(f"{path} has {size} bytes, the manifest says {entry.bytes}. Export the checkpoint again.")
        if path.suffix == ".onnx":
            for data in external_files(path):
                self.file(data.relative_to(self.path).as_posix())
        return path

    def graph_digest(self, relative: str) -> str:
        """What tells a graph and its external data from any other, by the digests that the manifest has of them."""
        data = [file.relative_to(self.path).as_posix() for file in external_files(self.path / relative)]
        return "".join(self.manifest.files[name].sha256 for name in [relative, *sorted(data)])

    def report_path(self, name: str) -> Path:
        """Where the report of that name is written.

        Raises:
            BundleError: `reports` is a link that leaves the bundle.
        """
        folder = self.path / REPORTS
        if not folder.resolve().is_relative_to(self.path.resolve()):
            raise BundleError(f"{folder} is a link that leaves the bundle. Replace it by a folder.")
        return folder / name

    def variant(self, name: str) -> Variant:
        """The variant of that name, or a `BundleError` that lists what there is."""
        try:
            return self.manifest.variants[name]
        except KeyError:
            raise BundleError(
                f"{self.path} has no variant {name!r}; it has {', '.join(self.manifest.variants)}. "
                "Add one with: perceiver-deploy convert BUNDLE --precision PRECISION"
            ) from None

    def samples(self) -> list[str]:
        """Paths of the golden samples, relative to the bundle."""
        return sorted(path for path in self.manifest.files if path.startswith("samples/"))

    def exact_outputs(self, variant: str) -> dict[str, str]:
        """Paths of what a variant's graph gives exactly, by the golden samples that it is of (see `exact_file`)."""
        files = {sample: exact_file(variant, sample) for sample in self.samples()}
        return {sample: file for sample, file in files.items() if file in self.manifest.files}


class Staging:
    """Files of a bundle that is being written. `path` hands out places to write to."""

    def __init__(self, root: Path, kept: dict[str, FileEntry]) -> None:
        self.root = root
        self._kept = kept

    def path(self, relative: str) -> Path:
        """Where to write the file `relative`; what was there is unlinked first, never changed in place."""
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        self.remove(relative)
        return path

    def remove(self, relative: str) -> None:
        """Leave a file of the old bundle out of the new one."""
        (self.root / relative).unlink(missing_ok=True)
        self._kept.pop(relative, None)

    def finish(self, manifest: Manifest) -> Manifest:
        """Add the digests of all files and write `bundle.json`."""
        files = dict(self._kept)
        for path in sorted(self.root.rglob("*")):
            relative = path.relative_to(self.root).as_posix()
            belongs = relative != MANIFEST_NAME and not relative.startswith(f"{REPORTS}/")
            if path.is_file() and belongs and relative not in files:
                files[relative] = FileEntry(sha256=sha256(path), bytes=path.stat().st_size)
        manifest = Manifest.model_validate(
            manifest.model_copy(update={"files": dict(sorted(files.items()))}).model_dump(by_alias=True)
        )
        self.path(MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        return manifest

    def link_kept(self, bundle: Bundle) -> None:
        """Link what stays of a bundle, and its reports; what else lies in its directory is garbage and stays behind.

        Only when all else is written: onnx_ir reads no external data that has a second hard link.
        """
        reports = [path for path in (bundle.path / REPORTS).rglob("*") if path.is_file()]
        for source in [*(bundle.path / relative for relative in [MANIFEST_NAME, *self._kept]), *reports]:
            target = self.root / source.relative_to(bundle.path)
            if source.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(str(source), str(target))


def ensure_absent(path: str | Path, *, replace: bool) -> None:
    """Refuse an output path that exists, unless it is a bundle and may be replaced."""
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not replace:
        raise BundleError(f"{path} exists already. Choose another path, or replace it with --force.")
    if not (path / MANIFEST_NAME).exists():
        raise BundleError(f"{path} exists and is not a bundle, so --force does not replace it. Choose another path.")


@contextmanager
def new_bundle(path: str | Path, *, replace: bool = False) -> Iterator[Staging]:
    """Write a whole bundle; it appears at `path` when the block ends without an error.

    Raises:
        BundleError: the path is taken, or the disk is full or read-only.
    """
    path = Path(path).resolve()  # a bundle named through a link is changed where it lies
    with _disk_errors(path), _single_writer(path):
        ensure_absent(path, replace=replace)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _staging_directory(path) as root:
            yield Staging(root, {})
            if replace:
                _put_in_place(root, path)
            else:
                _put_where_nothing_is(root, path)


@contextmanager
def changed_bundle(path: str | Path) -> Iterator[tuple[Staging, Bundle]]:
    """Add to a bundle; the change takes effect when the block ends without an error. One writer at a time."""
    path = Path(path).resolve()  # a bundle named through a link is changed where it lies
    with _disk_errors(path), _single_writer(path):
        bundle = Bundle.open(path)
        with _staging_directory(path) as root:
            staging = Staging(root, dict(bundle.manifest.files))
            yield staging, bundle
            staging.link_kept(bundle)
            _put_in_place(root, path)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(
            f"{path} could not be written: {error.strerror or error}. Nothing was left there that was not there "
            "before. Free some space or choose a path that can be written."
        ) from error


@contextmanager
def _staging_directory(path: Path) -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        root.chmod(0o755)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _single_writer(path: Path) -> Iterator[None]:
    if not path.is_dir():
        yield  # Bundle.open says what is wrong
        return
    import fcntl  # not on Windows, where bundles can be read but not written

    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise BlockingIOError  # the bundle was replaced between open and lock
        yield
    except BlockingIOError:
        raise BundleError(f"{path} is being written by another process. Try again when it has finished.") from None
    finally:
        os.close(descriptor)


def _put_where_nothing_is(root: Path, path: Path) -> None:
    """Make `root` appear at `path` unless something appeared there in the meantime."""
    try:
        root.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise BundleError(f"{path} appeared while it was being written; it was left as it is.") from None


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copy2(source, target)


def _put_in_place(root: Path, path: Path) -> None:
    """Make `root` appear at `path`; what was at `path` ends up at `root`, to be deleted."""
    if not path.exists() or not any(path.iterdir()):
        root.rename(path)
    elif not _exchange(root, path):
        old = root.with_suffix(".old")
        path.rename(old)
        root.rename(path)
        old.rename(root)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directories in one step (Linux), or say that this system or file system cannot."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "renameat2"):
        return False
    names = os.fsencode(first), os.fsencode(second)
    return bool(libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)
