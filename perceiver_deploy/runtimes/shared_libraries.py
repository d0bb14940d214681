"""Load a shared library together with what it links, from the system or from NVIDIA's packages."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path

_MISSING = re.compile(r"(\S+\.so[.\d]*): cannot open shared object file")
_PACKAGES = (
    ("libcublas", "nvidia-cublas"),
    ("libcurand", "nvidia-curand"),
    ("libcufft", "nvidia-cufft"),
    ("libcudart", "nvidia-cuda-runtime"),
    ("libnvrtc", "nvidia-cuda-nvrtc"),
    ("libcudnn", "nvidia-cudnn-cu13"),
    ("libnvinfer.so.10", "tensorrt-cu13>=10.13,<11"),
    ("libnvonnxparser.so.10", "tensorrt-cu13>=10.13,<11"),
)
_DRIVER = "libcuda.so.1"


def load_with_dependencies(path: Path) -> str | None:
    """Load a library, and before it those that it links and that only a Python package has.

    Returns the first thing that is missing, with the package that brings it, or None. The driver's own library is not
    counted: see `runtimes.gpu`.
    """
    tried = set[str]()
    while True:
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            match = _MISSING.search(str(error))
            if match is None:
                return f"{path.name} cannot be loaded ({error})"
            name = match[1]
            if name == _DRIVER:
                return None
            if name in tried or not _load_packaged(name):
                return f"{name} is not here, which {path.name} links{_remedy(name)}"
            tried.add(name)
        else:
            return None


def _load_packaged(name: str) -> bool:
    """Load a library from `site-packages/nvidia` or `tensorrt_libs`; others that link it find it loaded."""
    for package, pattern in (("nvidia", f"**/{name}"), ("tensorrt_libs", name)):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for found in sorted(Path(folder).glob(pattern)):
                if load_with_dependencies(found) is None:
                    return True
    return False


def _remedy(name: str) -> str:
    package = next((package for start, package in _PACKAGES if name.startswith(start)), None)
    return f": pip install '{package}'" if package else ""
