"""Virtual environments for peers that need other versions of packages than those measured here."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.cache import cache_directory

_TIMEOUT = 900


class NotInstalledError(Exception):
    """A peer could not be installed; the text says why."""


@dataclass(frozen=True)
class Environment:
    """What to install, and the module that shows that it works."""

    requirement: str
    module: str

    def python(self) -> Path:
        """The interpreter of that environment, which is made on first use below the cache directory.

        It lends the packages of this environment where the peer takes the same version, so that torch and openvino
        are not downloaded again.

        Raises:
            NotInstalledError: pip failed.
        """
        folder = cache_directory() / f"{self.requirement.partition('=')[0]}-environment"
        python, ready = folder / "bin" / "python", folder / "ready"
        wanted = f"{self.requirement} {sys.version} {sysconfig.get_paths()['purelib']}"
        if ready.exists() and ready.read_text(encoding="utf-8") == wanted:
            return python
        try:
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            (own,) = folder.glob("lib/python*/site-packages")
            (own / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
            _run([str(python), "-m", "pip", "install", "--quiet", self.requirement])
            _run([str(python), "-c", f"import {self.module}"])
        except subprocess.SubprocessError as error:
            output = (getattr(error, "stderr", None) or str(error)).strip()
            raise NotInstalledError(f"{self.requirement} does not install here: {output.splitlines()[-1]}") from error
        ready.write_text(wanted, encoding="utf-8")
        return python


OPTIMUM = Environment("optimum-onnx==0.1.0", "optimum.exporters.onnx")
"""Needs an older transformers than the one measured here."""

NNCF = Environment("nncf==3.4.0", "nncf")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT)  # noqa: S603 - our own command
