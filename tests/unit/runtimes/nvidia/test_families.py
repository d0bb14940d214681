from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from perceiver_deploy.errors import MissingError, UsageError
from perceiver_deploy.runtimes.nvidia.families import FAMILIES, engine_family


@pytest.mark.parametrize(("version", "suits"), [("10.9.0.34", False), ("10.12.0.36", True), ("11.4.0.106", True)])
def test_version_that_is_too_old_is_refused_with_the_command_that_upgrades_it(
    version: str, suits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=version))
    if suits:
        assert FAMILIES["tensorrt"].load("Building").__version__ == version
        return
    with pytest.raises(MissingError, match=rf"10\.12 or later; {version} is installed.*--upgrade 'tensorrt>=10\.12'"):
        FAMILIES["tensorrt"].load("Building")


def test_bindings_whose_library_is_not_here_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("import ctypes; ctypes.CDLL('libnvinfer.so.99')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingError, match=r"libnvinfer\.so\.99.*--force-reinstall tensorrt"):
        FAMILIES["tensorrt"].load("Building")


def test_only_tensorrt_10_has_to_be_told_that_networks_are_strongly_typed() -> None:
    ten = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1))
    later = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace())
    assert FAMILIES["tensorrt"].network_flags(ten) == 1 << 1
    assert FAMILIES["tensorrt"].network_flags(later) == 0
    assert FAMILIES["tensorrt-rtx"].network_flags(ten) == 0


def test_engine_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(UsageError, match="'openvino'; expected tensorrt or tensorrt-rtx"):
        engine_family("openvino")
