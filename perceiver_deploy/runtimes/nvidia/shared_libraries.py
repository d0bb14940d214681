"""What a shared library links, read from its file without loading it, and whether that is here.

A provider of onnxruntime must not be loaded by anybody else: it asks its host for itself when it is loaded.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import struct
from pathlib import Path

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
# elf.h
_SHT_DYNAMIC, _DT_NEEDED = 6, 1
_SECTION = struct.Struct("<IIQQQQIIQQ")
_ENTRY = struct.Struct("<QQ")


def missing_dependencies(path: Path) -> list[str]:
    """What a library links that is not here, each with the package that brings it.

    What only a Python package has is loaded, so that the library finds it. The driver's own library is not counted:
    see `runtimes.gpu`.
    """
    missing = [name for name in linked_libraries(path) if name != _DRIVER and not _available(name)]
    return [f"{name} is not here, which {path.name} links{_remedy(name)}" for name in missing]


def linked_libraries(path: Path) -> list[str]:
    """Names in the dynamic section of a 64-bit little-endian ELF file; none for any other file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:6] != b"\x7fELF\x02\x01":
            return []
        (offset,) = struct.unpack_from("<Q", content, 40)
        size, count = struct.unpack_from("<HH", content, 58)
        sections = [_SECTION.unpack_from(content, offset + k * size) for k in range(count)]
        names = []
        for _, kind, _, _, start, length, link, _, _, _ in sections:
            if kind == _SHT_DYNAMIC:
                strings = sections[link][4]
                for at in range(start, start + length, _ENTRY.size):
                    tag, value = _ENTRY.unpack_from(content, at)
                    if tag == _DT_NEEDED:
                        end = content.find(b"\0", strings + value)
                        names.append(content[strings + value : end].decode())
        return names


def _available(name: str) -> bool:
    """Load a library from where the system finds it, or from NVIDIA's packages with what it links in turn."""
    if _loads(name):
        return True
    for package, pattern in (("nvidia", f"**/{name}"), ("tensorrt_libs", name)):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for found in sorted(Path(folder).glob(pattern)):
                if not missing_dependencies(found) and _loads(str(found)):
                    return True
    return False


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _remedy(name: str) -> str:
    package = next((package for start, package in _PACKAGES if name.startswith(start)), None)
    return f": pip install '{package}'" if package else ""
