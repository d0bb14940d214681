"""Files of a report are written whole: a failure leaves what was there before, and no other file."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from matplotlib.figure import Figure

from perceiver_deploy.bundle.samples import Sample, load_sample
from perceiver_deploy.errors import BundleError
from perceiver_deploy.evaluate.report.page import Page, Plot
from perceiver_deploy.pipeline import reports
from perceiver_deploy.pipeline.reports import write_page, write_report
from perceiver_deploy.pipeline.validate import validate

PAGE = Page("Report", ("One sentence.",), (), "command")


def write(folder, text="{}"):
    figure = Figure()
    figure.subplots()
    return write_page(folder / "report.json", text, PAGE, (Plot("speed", "Speed", figure),), png=True)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fail(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def no_room(monkeypatch):
    """Renaming a file that was written fails, as on a file system without room."""
    monkeypatch.setattr("perceiver_deploy.cache.Path.replace", fail)


def test_all_files_are_written_and_others_may_read_them(tmp_path):
    written = write(tmp_path)
    assert [path.name for path in written] == ["report.json", "report.html", "report.md", "speed.png"]
    assert sorted(contents(tmp_path)) == sorted(path.name for path in written)
    assert {path.stat().st_mode & 0o777 for path in written} == {0o644}
    assert contents(tmp_path)["speed.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("broken", ["render_html", "render_markdown", "_picture"])
def test_report_that_cannot_be_rendered_changes_nothing(tmp_path, monkeypatch, broken):
    write(tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(reports, broken, fail)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, '{"new": 1}')
    assert contents(tmp_path) == before


def test_report_that_cannot_be_written_changes_nothing(tmp_path, no_room):
    (tmp_path / "report.json").write_text("before")
    with pytest.raises(BundleError, match=r"report\.json could not be written: No space left"):
        write(tmp_path)
    assert contents(tmp_path) == {"report.json": b"before"}


def test_report_in_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="could not be written"):
        write_report(tmp_path / "file" / "report.json", "{}")


def sample(name):
    arrays = {"x": np.zeros((1, 2), np.float32)}
    return Sample(name, arrays, arrays, arrays)


class FakeBundle:
    """A bundle that has a folder of reports and no more."""

    def __init__(self, path):
        self.path = path

    def report_path(self, name):
        return self.path / "reports" / name


def test_sample_of_a_failure_is_kept_whole(tmp_path, monkeypatch):
    bundle = FakeBundle(tmp_path)
    failure = validate._keep(bundle, sample("first"))
    path = tmp_path / "reports" / "parity-failure.npz"
    assert failure.sample == str(path)
    assert load_sample(path).name == "first"
    monkeypatch.setattr("perceiver_deploy.cache.Path.replace", fail)
    with pytest.raises(BundleError, match="No space left"):
        validate._keep(bundle, sample("second"))
    assert [*path.parent.iterdir()] == [path]
    assert load_sample(path).name == "first"
