"""The NVIDIA GPUs of this machine, by the driver's own library `libcuda`, which needs no package.

TensorRT's lean and dispatch runtimes give back a pointer to garbage where there is no device: whatever may reach them
asks here first.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.errors import MissingError

_LIBRARY = "libcuda.so.1"
_KERNEL_MODULE = Path("/sys/module/nvidia/version")
# CUdevice_attribute, cuda.h
_MAJOR, _MINOR = 75, 76
_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """One device. `compute_capability` is as `8.9`."""

    name: str
    compute_capability: str
    memory_bytes: int


@dataclass(frozen=True)
class Gpus:
    """What the driver says. `problem` is why there is no device, None where there is one.

    `cuda_version` is the newest CUDA that the driver runs, as `13.0`.
    """

    devices: tuple[Gpu, ...] = ()
    cuda_version: str | None = None
    problem: str | None = None


def find_gpus() -> Gpus:
    """Ask the driver."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return Gpus(problem=f"there is no NVIDIA driver ({_LIBRARY}): install NVIDIA's driver for this GPU")
    if status := driver.cuInit(0):
        return Gpus(problem=f"the NVIDIA driver finds no GPU (cuInit says {_words(driver, status)})")
    count, version = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda_version = f"{version.value // 1000}.{version.value % 1000 // 10}"
    if count.value == 0:
        return Gpus(cuda_version=cuda_version, problem="the NVIDIA driver sees no GPU: see CUDA_VISIBLE_DEVICES")
    return Gpus(tuple(_describe(driver, index) for index in range(count.value)), cuda_version)


def require_gpu(purpose: str, index: int = 0) -> Gpu:
    """The device of that index.

    Raises:
        MissingError: no driver, no device, or fewer devices.
    """
    found = find_gpus()
    if found.problem is not None:
        raise MissingError(f"{purpose} needs an NVIDIA GPU, and {found.problem}.")
    if index >= len(found.devices):
        raise MissingError(f"{purpose} needs GPU {index}, and there are {len(found.devices)}, counted from 0.")
    return found.devices[index]


def driver_version() -> str | None:
    """Version of NVIDIA's kernel driver, or None when there is none (or the system is not Linux)."""
    try:
        return _KERNEL_MODULE.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _describe(driver: ctypes.CDLL, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return Gpu(name.value.decode(), f"{major.value}.{minor.value}", memory.value)


def _words(driver: ctypes.CDLL, status: int) -> str:
    text = ctypes.c_char_p()
    driver.cuGetErrorString(status, ctypes.byref(text))
    return (text.value or b"").decode() or f"error {status}"
