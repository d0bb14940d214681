from __future__ import annotations

import _ctypes
from pathlib import Path

from perceiver_deploy.runtimes.nvidia.shared_libraries import linked_libraries, missing_dependencies

LIBRARY = Path(_ctypes.__file__)


def test_linked_libraries_are_read_from_the_file() -> None:
    assert "libc.so.6" in linked_libraries(LIBRARY)


def test_file_that_is_no_library_links_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_bytes(b"no library")
    assert linked_libraries(tmp_path / "text.so") == []


def test_library_whose_dependencies_are_here_lacks_nothing() -> None:
    assert missing_dependencies(LIBRARY) == []


def test_dependency_that_is_not_here_is_named_and_the_library_is_not_loaded(tmp_path: Path) -> None:
    for absent, remedy in (("libq.so.6", ""), ("libcudnn", ": pip install 'nvidia-cudnn-cu13'")):
        changed = tmp_path / "changed.so"
        name = absent.ljust(9, "x").encode()
        changed.write_bytes(LIBRARY.read_bytes().replace(b"libc.so.6", name))
        expected = f"{name.decode()} is not here, which changed.so links{remedy}"
        assert missing_dependencies(changed) == [expected]
