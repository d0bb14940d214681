"""Real pip against an index on the loopback, real apt against a repository on the disk; one test uses the network."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace

import pytest

from perceiver_deploy.data.fetch.archives import read_members
from perceiver_deploy.data.fetch.fetching import cache_path, cached, fetch, is_cached
from perceiver_deploy.data.fetch.sources import SOURCES
from perceiver_deploy.errors import MissingError, PerceiverDeployError
from tests.helpers.package_index import PACKAGE, VERSION, WHEEL, describe, sdist_bytes, serve, wheel_bytes

CLOSED_PORT = "http://127.0.0.1:9/simple"  # `discard`, which nothing has served for decades


@pytest.fixture
def cache(tmp_path, monkeypatch):
    path = tmp_path / "cache"
    monkeypatch.setenv("PERCEIVER_DEPLOY_CACHE", str(path))
    return path


@pytest.fixture
def pip_settings(monkeypatch):
    """pip as nobody has configured it, but for the index that the function it gives is told."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in (("CONFIG_FILE", os.devnull), ("NO_CACHE_DIR", "1"), ("RETRIES", "0")):
        monkeypatch.setenv(f"PIP_{name}", value)
    return lambda url: monkeypatch.setenv("PIP_INDEX_URL", url)


@pytest.fixture
def index(cache, pip_settings):
    with serve(WHEEL, wheel_bytes()) as index:
        pip_settings(index.url)
        yield index


def visible(cache):
    """Files of the cache, but for the lock."""
    return sorted(path.name for path in (cache / "data").iterdir() if path.name != ".lock")


def test_fetched_file_is_the_cached_one_and_is_fetched_once(index, cache):
    assert not is_cached(index.source)
    path = fetch(index.source)
    assert path == cached(index.source) == cache / "data" / WHEEL
    assert path.read_bytes() == index.content
    assert [name for name, _ in read_members(path, index.source.content)] == ["tiny_data/hello.txt"]
    assert is_cached(index.source)
    assert fetch(index.source) == path
    assert index.downloads == 1
    assert visible(cache) == [WHEEL]


@pytest.mark.parametrize("tags", ["cp312-cp312-macosx_11_0_arm64", "cp39-cp39-win_amd64.win32", "py2.py3-none-any"])
def test_wheel_of_another_platform_is_fetched_all_the_same(tags, cache, pip_settings):
    with serve(f"tiny_data-1.0-{tags}.whl", wheel_bytes()) as index:
        pip_settings(index.url)
        assert fetch(index.source).read_bytes() == index.content


def test_missing_file_is_told_with_the_command_that_fetches_it(index, cache):
    with pytest.raises(MissingError, match=r"is not here yet\. Fetch it with: perceiver-deploy data fetch tiny$"):
        cached(index.source)


def test_damaged_file_in_the_cache_is_refused_and_fetched_again(index, cache, caplog, monkeypatch):
    path = fetch(index.source)
    path.write_bytes(index.content[:1000])
    with pytest.raises(MissingError, match=f"has 1,000 bytes and sha256 .*, expected .*{index.source.sha256}"):
        cached(index.source)
    monkeypatch.setattr(logging.getLogger("perceiver_deploy"), "propagate", True)
    with caplog.at_level(logging.INFO, "perceiver_deploy"):
        fetch(index.source)
    assert "has 1,000 bytes" in caplog.text
    assert cached(index.source).read_bytes() == index.content
    assert index.downloads == 2


def test_changed_download_is_refused_with_both_digests_and_thrown_away(index, cache):
    index.content = wheel_bytes(b"y" * 200_000)
    found = describe(WHEEL, index.content, "pypi").sha256
    with pytest.raises(PerceiverDeployError, match=f"has sha256 {found}, expected {index.source.sha256}") as error:
        fetch(index.source)
    assert error.value.exit_code == 1
    assert visible(cache) == []


@pytest.mark.parametrize("honest", [True, False], ids=["shorter file", "connection closed early"])
def test_truncated_download_is_refused_and_thrown_away(honest, index, cache):
    index.content = index.content[:100_000]
    if honest:
        index.announced = len(index.content)
    with pytest.raises(PerceiverDeployError, match=r"truncated|IncompleteRead"):
        fetch(index.source)
    assert visible(cache) == []


def test_setup_py_of_a_changed_sdist_does_not_run(cache, pip_settings, tmp_path):
    mark = tmp_path / "setup-ran"
    harmless = sdist_bytes("")
    with serve("tiny-data-1.0.tar.gz", harmless) as index:
        pip_settings(index.url)
        index.content = sdist_bytes(f"open({str(mark)!r}, 'w')")
        index.announced = len(index.content)
        with pytest.raises(PerceiverDeployError, match=f"expected {index.source.sha256}"):
            fetch(index.source)
    assert index.downloads == 1
    assert not mark.exists()


def test_no_network_is_told_with_the_place_for_the_file(cache, pip_settings):
    pip_settings(CLOSED_PORT)
    source = describe(WHEEL, wheel_bytes(), "pypi")
    with pytest.raises(MissingError, match=f"not be fetched from pypi .*put the file at {cache_path(source)}"):
        fetch(source)
    assert visible(cache) == []


def test_file_put_into_the_cache_by_hand_is_taken_without_a_network(cache, pip_settings):
    pip_settings(CLOSED_PORT)
    source = describe(WHEEL, wheel_bytes(), "pypi")
    cache_path(source).parent.mkdir(parents=True)
    cache_path(source).write_bytes(wheel_bytes())
    assert fetch(source) == cached(source) == cache_path(source)


def test_no_room_is_told_before_the_download(index, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**6, 10**6 - 100, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(PerceiverDeployError, match=r"No space left on device.*PERCEIVER_DEPLOY_CACHE") as error:
        fetch(index.source)
    assert error.value.exit_code == 1
    assert index.downloads == 0
    assert visible(cache) == []


@pytest.mark.parametrize("kilobytes", [100, 300], ids=["too small for it", "full while pip writes"])
def test_full_disk_is_told_and_nothing_is_left(kilobytes, index, tmp_path):
    """A real small disk; pip needs twice the 200 kB for a moment."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*namespace, *mount], capture_output=True).returncode:
        pytest.skip("this system does not let a user mount a tmpfs")
    fetching_process = [sys.executable, "-c", fetch_program(index.source)]
    listing = f"find {tmp_path}/cache -type f -o -name '*.partial'"
    script = f'{" ".join(mount)} && {{ "$@"; code=$?; {listing}; exit $code; }}'
    command = [*namespace, "sh", "-c", script, "sh", *fetching_process]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "cannot be written" in result.stderr
    assert "No space left on device" in result.stderr
    assert result.stdout.split() == [f"{tmp_path}/cache/data/.lock"]


def fetch_program(source):
    return f"""
from perceiver_deploy.data.fetch.fetching import fetch
from perceiver_deploy.data.fetch.sources import PublicFile
fetch({source!r})
"""


def test_cache_that_cannot_be_written_is_told(index, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PERCEIVER_DEPLOY_CACHE", str(tmp_path / "file"))  # root may write into any folder
    with pytest.raises(PerceiverDeployError, match=f"cannot be written to {tmp_path}/file/data: Not a directory"):
        fetch(index.source)


def test_processes_that_fetch_at_once_download_once_and_all_succeed(index):
    command = [sys.executable, "-c", fetch_program(index.source)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [b""] * 3
    assert [process.returncode for process in processes] == [0] * 3
    assert index.downloads == 1
    assert cached(index.source).read_bytes() == index.content


def test_what_a_killed_process_left_is_removed(index, cache):
    left = cache / "data" / "abc.partial"
    left.mkdir(parents=True)
    (left / WHEEL).write_bytes(b"half")
    fetch(index.source)
    assert visible(cache) == [WHEEL]


def test_python_without_pip_is_told_with_the_place_for_the_file(index, monkeypatch):
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(MissingError, match=f"pip is not on this system.*{cache_path(index.source)} by hand"):
        fetch(index.source)


def test_system_without_apt_is_told_with_the_place_for_the_file(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    source = SOURCES["sweethome3d"]
    with pytest.raises(MissingError, match="apt-get is not on this system") as error:
        fetch(source)
    assert f"{source.package} {source.version}) at {cache_path(source)} by hand" in str(error.value)


@pytest.fixture
def debian(cache, tmp_path, monkeypatch):
    """A Debian package in a repository on the disk, and an apt that knows no other and has no package lists."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("apt-get and dpkg-deb are not on this system")
    tree, repository = tmp_path / "tree", tmp_path / "repository"
    control = f"Package: {PACKAGE}\nVersion: {VERSION}\nArchitecture: all\nMaintainer: N\nDescription: D\n"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(control)
    (tree / "hello.txt").write_text("hello")
    repository.mkdir()
    file = f"{PACKAGE}_{VERSION}_all.deb"
    subprocess.run(
        ["dpkg-deb", "-Zxz", "--root-owner-group", "--build", tree, repository / file], check=True, capture_output=True
    )
    source = describe(file, (repository / file).read_bytes(), "debian")
    entry = f"{control}Filename: ./{file}\nSize: {source.bytes}\nSHA256: {source.sha256}\n"
    (repository / "Packages.gz").write_bytes(gzip.compress(entry.encode()))
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{repository} ./\n")
    state, hook_ran = tmp_path / "state", tmp_path / "hook-ran"
    (tmp_path / "apt.conf").write_text(
        f'Dir::State "{state}";\nDir::Cache "{state}";\nDir::Etc::SourceList "{tmp_path}/sources.list";\n'
        f'Dir::Etc::SourceParts "-";\nAPT::Update::Post-Invoke {{ "touch {hook_ran}"; }};\n'
    )
    state.mkdir()
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return source


def test_apt_without_package_lists_fetches_lists_into_the_cache(debian, cache, tmp_path):
    assert [name for name, _ in read_members(fetch(debian), "*.txt")] == ["hello.txt"]
    assert list((cache / "apt/lists").glob("*Packages*"))
    assert not list((tmp_path / "state").rglob("*Packages*"))
    assert not (tmp_path / "hook-ran").exists()  # it is for the system's lists
    assert visible(cache) == [debian.file]


def test_apt_with_package_lists_uses_them(debian, cache):
    subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "update"], check=True)
    fetch(debian)
    assert visible(cache) == [debian.file]
    assert not (cache / "apt").exists()


def test_version_that_apt_does_not_have_is_told(debian, cache):
    with pytest.raises(MissingError, match=r"could not be fetched from debian .*'2.0' for 'tiny-data' was not found"):
        fetch(replace(debian, version="2.0"))
    assert visible(cache) == []


def test_debian_package_that_changed_is_refused_and_thrown_away(debian, cache):
    with pytest.raises(PerceiverDeployError, match=f"sha256 {debian.sha256}, expected .* {'0' * 64}"):
        fetch(replace(debian, sha256="0" * 64))
    assert visible(cache) == []


def test_fetches_the_rated_snippets_from_the_real_registry(cache):
    try:
        path = fetch(SOURCES["vader"])
    except MissingError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"no network: {error}")
    ((_, inner),) = read_members(path, SOURCES["vader"].content)
    ((_, snippets),) = read_members(inner, "*/movieReviewSnippets_GroundTruth.txt")
    assert len(snippets.splitlines()) == 10_605
