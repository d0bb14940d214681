"""A virtual environment for optimum-onnx, which needs an older transformers than the one measured here."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from perceiver_deploy.cache import cache_directory

REQUIREMENT = "optimum-onnx==0.1.0"
_TIMEOUT = 900


class NotInstalledError(Exception):
    """optimum-onnx could not be installed; the text says why."""


def optimum_python() -> Path:
    """The interpreter of that environment, which is made on first use below the cache directory.

    It lends the packages of this environment where optimum-onnx takes the same version, so that torch is not
    downloaded again.

    Raises:
        NotInstalledError: pip failed.
    """
    folder = cache_directory() / "optimum-environment"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists() and ready.read_text(encoding="utf-8") == _wanted():
        return python
    try:
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        (own,) = folder.glob("lib/python*/site-packages")
        (own / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
        _run([str(python), "-m", "pip", "install", "--quiet", REQUIREMENT])
        _run([str(python), "-c", "import optimum.exporters.onnx"])
    except subprocess.SubprocessError as error:
        output = (getattr(error, "stderr", None) or str(error)).strip()
        raise NotInstalledError(f"{REQUIREMENT} does not install here: {output.splitlines()[-1]}") from error
    ready.write_text(_wanted(), encoding="utf-8")
    return python


def _wanted() -> str:
    return f"{REQUIREMENT} {sys.version} {sysconfig.get_paths()['purelib']}"


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT)  # noqa: S603 - our own command
