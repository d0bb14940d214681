import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import onnx
import pytest

from perceiver_deploy.bundle import bundle as bundle_module
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle, new_bundle
from perceiver_deploy.bundle.manifest import Manifest
from perceiver_deploy.errors import BundleError
from tests.helpers.factories import directory_content, manifest_document

ONNX = "onnx/fp32.onnx"


def graph(version):
    """An ONNX file that names its producer, and nothing else."""
    return onnx.ModelProto(producer_name=f"graph {version}").SerializeToString()


def manifest(version=0, **changes):
    return Manifest.model_validate(manifest_document(files={}, provenance={"version": version}, **changes))


def write(path, version=0, *, replace=False):
    with new_bundle(path, replace=replace) as staging:
        staging.path(ONNX).write_bytes(graph(version))
        staging.path("samples/a.npz").write_bytes(b"sample")
        staging.finish(manifest(version))
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "bundle")


def edit(path, change):
    file = path / "bundle.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


# Reading


def test_open_gives_the_manifest_and_files_that_were_written(path):
    bundle = Bundle.open(path)
    assert bundle.manifest.provenance == {"version": 0}
    assert bundle.file(ONNX).read_bytes() == graph(0)
    assert bundle.manifest.files[ONNX].sha256 == hashlib.sha256(graph(0)).hexdigest()
    assert bundle.manifest.files[ONNX].bytes == len(graph(0))
    assert list(bundle.manifest.files) == [ONNX, "samples/a.npz"]
    assert bundle.samples() == ["samples/a.npz"]


@pytest.mark.parametrize("name", ["nothing here", "empty", "file"])
def test_open_says_how_to_make_a_bundle_where_there_is_none(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"has no bundle\.json.*perceiver-deploy export") as caught:
        Bundle.open(tmp_path / name)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "truncated", "not UTF-8", "nested"]
)
def test_open_refuses_a_manifest_that_is_not_json(path, content):
    (path / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"bundle\.json is not JSON"):
        Bundle.open(path)


def test_open_refuses_a_manifest_that_is_a_directory(path):
    (path / "bundle.json").unlink()
    (path / "bundle.json").mkdir()
    with pytest.raises(BundleError, match="cannot be read: Is a directory"):
        Bundle.open(path)


@pytest.mark.parametrize("document", [[], "text", None, {}, {"schema_version": "1"}])
def test_open_refuses_json_that_is_no_manifest(path, document):
    (path / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="not a valid manifest"):
        Bundle.open(path)


def test_open_refuses_a_newer_schema_before_it_looks_at_the_rest(path):
    edit(path, lambda document: document.update(schema_version=2, invented="by the future"))
    with pytest.raises(BundleError, match=r"schema_version 2; .* up to 1\. Upgrade"):
        Bundle.open(path)


def test_open_names_the_entry_that_is_wrong(path):
    edit(path, lambda document: document["variants"]["fp32"].update(precision="fp7"))
    with pytest.raises(BundleError, match=r"variants\.fp32\.precision"):
        Bundle.open(path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "onnx\\..\\secret"])
def test_open_refuses_a_manifest_whose_paths_leave_the_bundle(path, name):
    edit(path, lambda document: document["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}))
    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle.open(path)


def test_file_refuses_a_changed_file_of_the_same_size(path):
    (path / ONNX).write_bytes(graph(1))
    with pytest.raises(BundleError, match="was changed after the bundle was written"):
        Bundle.open(path).file(ONNX)


def test_file_refuses_a_size_that_differs_from_the_manifest(path):
    edit(path, lambda document: document["files"][ONNX].update(bytes=6))
    with pytest.raises(BundleError, match=ONNX):
        Bundle.open(path).file(ONNX)


def test_file_refuses_a_missing_file(path):
    (path / ONNX).unlink()
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        Bundle.open(path).file(ONNX)


def test_file_refuses_a_file_that_is_not_listed(path):
    (path / "onnx/other.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=rf"does not list 'onnx/other\.onnx'; it has {ONNX}"):
        Bundle.open(path).file("onnx/other.onnx")


def test_file_refuses_a_link_that_leaves_the_bundle_even_to_the_right_bytes(path, tmp_path):
    (path / ONNX).rename(tmp_path / "outside")
    (path / ONNX).symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="link that leaves the bundle"):
        Bundle.open(path).file(ONNX)


def test_file_refuses_a_directory_link_that_leaves_the_bundle(path, tmp_path):
    (path / "onnx").rename(tmp_path / "outside")
    (path / "onnx").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="link that leaves the bundle"):
        Bundle.open(path).file(ONNX)


def test_file_accepts_a_bundle_reached_through_a_link(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    assert Bundle.open(tmp_path / "link").file(ONNX).read_bytes() == graph(0)


def test_variant_that_is_absent_is_answered_with_those_there_are(path):
    with pytest.raises(BundleError, match=r"no variant 'int8'; it has fp32\. .*perceiver-deploy convert"):
        Bundle.open(path).variant("int8")


# Writing


def test_new_bundle_refuses_an_existing_bundle_without_replace(path):
    before = directory_content(path)
    with pytest.raises(BundleError, match=r"exists already\..*--force"):
        write(path, 1)
    assert directory_content(path) == before


def test_new_bundle_replaces_all_of_an_existing_bundle_with_replace(path):
    (path / "reports").mkdir()
    (path / "reports/speed.json").write_text("{}")
    write(path, 1, replace=True)
    assert set(directory_content(path)) == {"bundle.json", ONNX, "samples/a.npz"}
    assert Bundle.open(path).file(ONNX).read_bytes() == graph(1)


def test_new_bundle_with_replace_refuses_a_directory_that_is_no_bundle(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    with pytest.raises(BundleError, match="not a bundle, so --force does not replace it"):
        write(tmp_path / "thesis", replace=True)
    assert directory_content(tmp_path) == {"thesis/chapter.txt": b"years of work"}


def test_new_bundle_with_replace_refuses_a_file(tmp_path):
    (tmp_path / "thesis").write_text("years of work")
    with pytest.raises(BundleError, match="--force does not replace it"):
        write(tmp_path / "thesis", replace=True)
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_new_bundle_takes_an_empty_directory_and_makes_parents(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    write(tmp_path / "a/b/c")
    assert Bundle.open(tmp_path / "empty").file(ONNX)
    assert Bundle.open(tmp_path / "a/b/c").file(ONNX)


@pytest.mark.parametrize("replace", [False, True])
def test_an_error_while_writing_leaves_what_was_there(tmp_path, replace):
    path = tmp_path / "bundle"
    if replace:
        write(path)
    before = directory_content(tmp_path)
    with pytest.raises(ZeroDivisionError), new_bundle(path, replace=replace) as staging:
        staging.path(ONNX).write_bytes(b"half a graph")
        raise ZeroDivisionError
    assert directory_content(tmp_path) == before
    assert [child.name for child in tmp_path.iterdir()] == (["bundle"] if replace else [])


def test_an_error_while_changing_leaves_every_byte_of_the_bundle(path, tmp_path):
    before = directory_content(path)
    with pytest.raises(ZeroDivisionError), changed_bundle(path) as (staging, _):
        staging.path(ONNX).write_bytes(b"half a graph")
        raise ZeroDivisionError
    assert directory_content(path) == before
    assert list(tmp_path.iterdir()) == [path]


def change(path, version):
    with changed_bundle(path) as (staging, bundle):
        staging.path(ONNX).write_bytes(graph(version))
        staging.finish(bundle.manifest.model_copy(update={"provenance": {"version": version}}))


def test_changed_bundle_keeps_the_other_files_and_reports(path):
    (path / "reports").mkdir()
    (path / "reports/speed.json").write_text("{}")
    change(path, 1)
    bundle = Bundle.open(path)
    assert bundle.file(ONNX).read_bytes() == graph(1)
    assert bundle.file("samples/a.npz").read_bytes() == b"sample"
    assert (path / "reports/speed.json").read_text() == "{}"
    assert list(bundle.manifest.files) == [ONNX, "samples/a.npz"]


def test_changed_bundle_never_writes_into_the_files_of_the_old_one(path, tmp_path):
    for name in (ONNX, "bundle.json"):
        os.link(path / name, tmp_path / name.replace("/", "-"))
    old_manifest = (path / "bundle.json").read_bytes()
    change(path, 1)
    assert (tmp_path / "onnx-fp32.onnx").read_bytes() == graph(0)
    assert (tmp_path / "bundle.json").read_bytes() == old_manifest


def test_changed_bundle_does_not_bless_a_file_that_was_changed_behind_its_back(path):
    (path / "samples/a.npz").write_bytes(b"forged")
    change(path, 1)
    with pytest.raises(BundleError, match="was changed"):
        Bundle.open(path).file("samples/a.npz")


def test_changed_bundle_does_not_list_garbage_that_lay_in_the_directory(path):
    (path / "garbage.tmp").write_bytes(b"left by someone")
    change(path, 1)
    assert list(Bundle.open(path).manifest.files) == [ONNX, "samples/a.npz"]


def test_changed_bundle_copies_where_hard_links_are_not_possible(path, monkeypatch):
    def refuse(*_):
        raise OSError(bundle_module.errno.EXDEV, "no links here")

    monkeypatch.setattr(bundle_module.os, "link", refuse)
    change(path, 1)
    assert Bundle.open(path).file("samples/a.npz").read_bytes() == b"sample"


@pytest.mark.parametrize(
    "writer", [lambda path: write(path, 1, replace=True), lambda path: change(path, 1)], ids=["new", "change"]
)
def test_writers_work_where_directories_cannot_be_exchanged(path, tmp_path, monkeypatch, writer):
    monkeypatch.setattr(bundle_module, "_exchange", lambda *_: False)
    writer(path)
    assert Bundle.open(path).file(ONNX).read_bytes() == graph(1)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", [lambda path: write(path), lambda path: change(path, 1)], ids=["new", "change"])
def test_writers_refuse_a_path_below_a_file(tmp_path, writer):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError):
        writer(tmp_path / "file/bundle")
    assert directory_content(tmp_path) == {"file": b""}


@pytest.mark.parametrize("place", ["/proc/bundle", "/sys/bundle"])
def test_a_read_only_place_gives_a_bundle_error_and_stays_as_it_was(place):
    before = sorted(Path("/sys").iterdir())
    with pytest.raises(BundleError, match=f"{place} could not be written.*choose a path that can be written"):
        write(Path(place))
    assert not Path(place).exists()
    assert sorted(Path("/sys").iterdir()) == before


FULL_DISK = """
import resource, sys
from pathlib import Path
from perceiver_deploy.bundle.bundle import changed_bundle, new_bundle
from perceiver_deploy.errors import BundleError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
path = Path(sys.argv[2])
try:
    if sys.argv[1] == "change":
        with changed_bundle(path) as (staging, bundle):
            staging.path("onnx/fp32.onnx").write_bytes(bytes(1 << 20))
    else:
        with new_bundle(path, replace=sys.argv[1] == "replace") as staging:
            staging.path("onnx/fp32.onnx").write_bytes(bytes(1 << 20))
except BundleError as error:
    print(error)
"""


@pytest.mark.parametrize("how", ["new", "replace", "change"])
def test_a_full_disk_gives_a_bundle_error_and_leaves_what_was_there(tmp_path, how):
    """RLIMIT_FSIZE makes the write fail (EFBIG) part of the way, as a full disk (ENOSPC) does."""
    path = tmp_path / "bundle"
    if how != "new":
        write(path)
    before = directory_content(tmp_path)
    output = python(FULL_DISK, how, path)
    assert "could not be written: File too large" in output
    assert "Free some space" in output
    assert directory_content(tmp_path) == before
    assert list(tmp_path.iterdir()) == ([] if how == "new" else [path])


# Two writers


def test_a_second_change_is_refused_while_the_first_is_under_way(path):
    with changed_bundle(path) as (staging, bundle):
        with pytest.raises(BundleError, match="is being written by another process"):
            change(path, 2)
        staging.path(ONNX).write_bytes(graph(1))
        staging.finish(bundle.manifest)
    assert Bundle.open(path).file(ONNX).read_bytes() == graph(1)


def test_a_replacement_is_refused_while_a_change_is_under_way(path):
    with changed_bundle(path) as (staging, bundle):
        with pytest.raises(BundleError, match="is being written by another process"):
            write(path, 2, replace=True)
        staging.finish(bundle.manifest)


def test_a_change_is_refused_while_a_replacement_is_under_way(path):
    with new_bundle(path, replace=True) as staging:
        with pytest.raises(BundleError, match="is being written by another process"):
            change(path, 2)
        staging.path(ONNX).write_bytes(graph(1))
        staging.finish(manifest(1))


def test_a_new_bundle_does_not_replace_one_that_appeared_while_it_was_written(tmp_path):
    path = tmp_path / "bundle"
    with pytest.raises(BundleError), new_bundle(path) as staging:
        staging.path(ONNX).write_bytes(graph("late"))
        staging.finish(manifest(1))
        write(path, 0)
    assert Bundle.open(path).file(ONNX).read_bytes() == graph(0)


def test_the_lock_of_a_finished_change_is_released(path):
    change(path, 1)
    change(path, 2)
    assert Bundle.open(path).manifest.provenance == {"version": 2}


def test_of_many_concurrent_changes_each_is_made_whole_or_refused(path):
    made, refused = [], []

    def add(index):
        try:
            with changed_bundle(path) as (staging, bundle):
                staging.path(f"calibration/{index}.json").write_text(str(index))
                staging.finish(bundle.manifest)
            made.append(index)
        except BundleError as error:
            assert "another process" in str(error)
            refused.append(index)

    threads = [threading.Thread(target=add, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bundle = Bundle.open(path)
    assert made
    assert len(made) + len(refused) == 8
    kept = [bundle.file(name).read_text() for name in bundle.manifest.files if name.startswith("calibration/")]
    assert sorted(kept) == sorted(str(index) for index in made)


# Killed writers


WRITER = """
import itertools, json, os, signal, sys
from pathlib import Path
from onnx import ModelProto
from perceiver_deploy.bundle.bundle import changed_bundle, new_bundle
from perceiver_deploy.bundle.manifest import Manifest
how, path, document, first, kill_at = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), *map(int, sys.argv[4:])
TRACKED = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.listdir", "os.scandir",
           "shutil.rmtree", "shutil.copytree", "ctypes.dlopen", "ctypes.dlsym"}
def large(version):
    return ModelProto(doc_string=f"{version}" * 300_000).SerializeToString()
def write(version):
    manifest = Manifest.model_validate({**document, "files": {}, "provenance": {"version": version}})
    if how == "change":
        with changed_bundle(path) as (staging, bundle):
            staging.path("onnx/fp32.onnx").write_bytes(large(version))
            staging.finish(manifest)
    else:
        with new_bundle(path, replace=True) as staging:
            staging.path("onnx/fp32.onnx").write_bytes(large(version))
            staging.path("samples/a.npz").write_bytes(b"sample")
            staging.finish(manifest)
if kill_at < 0:  # write until killed from outside
    print("ready", flush=True)
    for version in itertools.count(first):
        write(version)
for kill_at in itertools.count(kill_at):  # one child for every file system call of one write
    if (child := os.fork()) == 0:
        calls = itertools.count()
        def hook(event, arguments):
            if event in TRACKED and next(calls) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        write(first + kill_at)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print("killed" if os.WIFSIGNALED(status) else "finished", first + kill_at, flush=True)
    sys.stdin.readline()
"""


def python(script, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def start_writer(how, path, first, kill_at):
    document = json.dumps(manifest_document())
    command = [sys.executable, "-c", WRITER, how, str(path), document, str(first), str(kill_at)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def checked_version(path):
    """Version of a bundle whose files all have the right digest and belong to that version."""
    bundle = Bundle.open(path)
    version = bundle.manifest.provenance["version"]
    model = onnx.ModelProto.FromString(bundle.file(ONNX).read_bytes())
    assert (model.producer_name, model.doc_string) in ((f"graph {version}", ""), ("", f"{version}" * 300_000))
    assert bundle.file("samples/a.npz").read_bytes() == b"sample"
    assert sorted(bundle.manifest.files) == [ONNX, "samples/a.npz"]
    return version


@pytest.mark.slow
@pytest.mark.parametrize("how", ["new", "change"])
def test_a_writer_killed_at_any_moment_leaves_an_old_or_a_new_bundle_whole(path, how):
    reached = kills = 0
    deadline = time.monotonic() + 60
    while kills < 10 or reached <= 10:  # writes are completed in between, so the kills hit at different places
        assert time.monotonic() < deadline, f"{kills} kills, and only {reached} writes completed"
        with start_writer(how, path, reached + 1, -1) as writer:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(0.013 * (1 + kills * 7 % 10))  # from within the first write to after several
            writer.send_signal(signal.SIGKILL)
        kills += 1
        version = checked_version(path)
        assert version >= reached
        reached = version
    change(path, 0)  # what the killed writers left behind is in nobody's way
    write(path, 1, replace=True)
    assert checked_version(path) == 1


@pytest.mark.parametrize("how", ["new", "change"])
def test_a_writer_killed_before_any_of_its_file_system_calls_leaves_a_whole_bundle(path, how):
    old, killed, replaced = 0, 0, 0
    with start_writer(how, path, 1, 0) as writer:
        while True:
            outcome, attempted = writer.stdout.readline().split()
            version = checked_version(path)
            assert version in (old, int(attempted))
            replaced += version != old
            old = version
            if outcome == "finished":
                assert version == int(attempted)
                break
            killed += 1
            print(file=writer.stdin, flush=True)
        writer.kill()
    assert killed > 15  # directories made, files opened, linked, renamed, removed
    assert 1 < replaced < killed  # some were killed before their commit, some while deleting the old bundle


def test_a_writer_of_a_first_bundle_killed_before_any_call_leaves_none_or_a_whole_one(tmp_path):
    path = tmp_path / "bundle"
    absent = 0
    with start_writer("new", path, 1, 0) as writer:
        while True:
            outcome, attempted = writer.stdout.readline().split()
            if path.exists():
                assert checked_version(path) == int(attempted)
                shutil.rmtree(path)
            else:
                assert outcome == "killed"
                absent += 1
            if outcome == "finished":
                break
            print(file=writer.stdin, flush=True)
        writer.kill()
    assert absent > 10


# Bundles made to reach outside


def test_a_listed_folder_that_is_a_link_is_not_written_through(path, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "x.engine").write_bytes(b"precious")
    (path / "engines").symlink_to(victim)
    edit(path, lambda document: document["files"].update(engines={"sha256": "0" * 64, "bytes": 0}))
    with pytest.raises(BundleError), changed_bundle(path) as (staging, opened):
        staging.path("engines/x.engine").write_bytes(b"ours")
        staging.finish(opened.manifest)
        raise BundleError("nothing of this takes effect")
    assert (victim / "x.engine").read_bytes() == b"precious"


def test_reports_are_not_written_through_a_link(path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (path / "reports").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a link that leaves the bundle"):
        Bundle.open(path).report_path("parity.json")


def external_model(location, **entries):
    """An ONNX file with one weight of 8 bytes in another file."""
    tensor = onnx.TensorProto(name="w", dims=[2], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])).SerializeToString()


@pytest.fixture
def external(path):
    """A bundle whose model keeps its weight in `onnx/fp32.onnx.data`."""
    with changed_bundle(path) as (staging, bundle):
        staging.path(ONNX).write_bytes(external_model("fp32.onnx.data", offset=4, length=8))
        staging.path(f"{ONNX}.data").write_bytes(bytes(12))
        staging.finish(bundle.manifest)
    return path


def test_the_digest_of_a_models_weights_is_checked_when_the_model_is_opened(external):
    assert Bundle.open(external).file(ONNX) == external / ONNX
    (external / f"{ONNX}.data").write_bytes(bytes(11) + b"1")
    with pytest.raises(BundleError, match=r"fp32\.onnx\.data was changed after the bundle was written"):
        Bundle.open(external).file(ONNX)


def test_weights_that_are_not_listed_are_refused(external):
    edit(external, lambda document: document["files"].pop(f"{ONNX}.data"))
    with pytest.raises(BundleError, match=r"does not list 'onnx/fp32\.onnx\.data'"):
        Bundle.open(external).file(ONNX)


def test_a_model_whose_weights_are_missing_is_refused(external):
    (external / f"{ONNX}.data").unlink()
    with pytest.raises(BundleError, match=r"reads weights from 'fp32\.onnx\.data', which is not there"):
        Bundle.open(external).file(ONNX)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "weights/../../secret", "..\\secret", ""])
def test_a_model_whose_weights_lie_outside_its_folder_is_refused_even_if_they_are_listed(path, location):
    (path / "secret").write_bytes(bytes(8))
    with changed_bundle(path) as (staging, bundle):
        staging.path(ONNX).write_bytes(external_model(location))
        staging.path("secret").write_bytes(bytes(8))
        staging.finish(bundle.manifest)
    with pytest.raises(BundleError, match="outside its folder"):
        Bundle.open(path).file(ONNX)


def test_a_bundle_named_through_a_link_is_changed_where_it_lies(path, tmp_path):
    link = tmp_path / "latest.bundle"
    link.symlink_to(path)
    with changed_bundle(link) as (staging, opened):
        staging.path("samples/new.npz").write_bytes(b"new")
        staging.finish(opened.manifest)
    assert link.is_symlink()
    assert "samples/new.npz" in Bundle.open(path).manifest.files
