import io
import lzma
import tarfile
import zipfile

import pytest

from perceiver_deploy.data.fetch.archives import read_members
from perceiver_deploy.errors import InputError

FILES = {"share/a.wav": b"one", "share/deep/b.wav": b"two", "share/c.txt": b"three"}


def make_zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.mkdir("share")
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def make_tar(files, mode="w:gz", prefix=""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        folder, link = tarfile.TarInfo(f"{prefix}share"), tarfile.TarInfo(f"{prefix}share/link.wav")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(folder)
        archive.addfile(link)
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def make_deb(files):
    """As deb(5) has it: an ar archive of three members, each padded to an even size."""
    control = b"odd"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": control,
        "data.tar.xz": lzma.compress(make_tar(files, "w:", prefix="./")),
    }
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


MAKERS = {"zip": make_zip, "tar": make_tar, "deb": make_deb}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("on_disk", [True, False])
def test_reads_the_matching_files_and_no_links_or_directories(kind, on_disk, tmp_path):
    archive = MAKERS[kind](FILES)
    if on_disk:
        path = tmp_path / "archive"
        path.write_bytes(archive)
        archive = path
    assert dict(read_members(archive)) == FILES
    assert list(read_members(archive, "share/*.wav")) == [("share/a.wav", b"one"), ("share/deep/b.wav", b"two")]


def test_reads_an_archive_that_is_a_member_of_another():
    ((_, inner),) = read_members(make_deb({"share/models.zip": make_zip(FILES)}))
    assert dict(read_members(inner)) == FILES


@pytest.mark.parametrize("kind", ["zip", "tar"])  # the data of a deb is a tar
@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "share/../../outside", "..\\outside"])
def test_refuses_a_member_whose_path_leads_out_of_the_archive(kind, path):
    with pytest.raises(InputError, match="leads out of it"):
        list(read_members(MAKERS[kind]({path: b"evil"}), "nothing that matches"))


@pytest.mark.parametrize("kind", MAKERS)
def test_refuses_a_truncated_archive(kind, tmp_path):
    path = tmp_path / "archive"
    whole = MAKERS[kind]({"share/noise.wav": bytes(range(256)) * 400})
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"{path} cannot be read"):
        list(read_members(path))


def test_refuses_what_is_no_archive():
    with pytest.raises(InputError, match="expected a sound zip, tar or Debian package"):
        list(read_members(b"GIF89a" * 100))
