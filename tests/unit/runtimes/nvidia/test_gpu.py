"""What the driver is asked, with a library in its place that answers as `cuda.h` says."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiver_deploy.errors import MissingError
from perceiver_deploy.runtimes.nvidia import gpu
from perceiver_deploy.runtimes.nvidia.gpu import Gpu, find_gpus, require_gpu

DRIVER = r"""
#include <stddef.h>
#include <string.h>
int cuInit(unsigned flags) { return STATUS; }
int cuGetErrorString(int status, const char** text) { *text = "no CUDA-capable device is detected"; return 0; }
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuDeviceGetCount(int* count) { *count = COUNT; return 0; }
int cuDeviceGet(int* device, int index) { *device = index; return 0; }
int cuDeviceGetName(char* name, int length, int device) { strncpy(name, device ? "NVIDIA H100" : "NVIDIA L4", length);
                                                           return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = 24ull << 30; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) { *value = device ? (attribute == 75 ? 9 : 0)
                                                                                  : (attribute == 75 ? 8 : 9);
                                                                  return 0; }
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """`driver(status, count)` puts a library in place whose `cuInit` gives `status` and that has `count` devices."""
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")

    def install(status: int, count: int) -> None:
        library = tmp_path / "libcuda.so.1"
        definitions = [f"-DSTATUS={status}", f"-DCOUNT={count}"]
        command = [compiler, "-shared", "-fPIC", "-x", "c", *definitions, "-o", str(library), "-"]
        subprocess.run(command, input=DRIVER.encode(), check=True)
        monkeypatch.setattr(gpu, "_LIBRARY", str(library))

    return install


def test_devices_are_described_by_name_capability_and_memory(driver: Callable[[int, int], None]) -> None:
    driver(0, 2)
    found = find_gpus()
    assert found.devices == (Gpu("NVIDIA L4", "8.9", 24 << 30), Gpu("NVIDIA H100", "9.0", 24 << 30))
    assert (found.cuda_version, found.problem) == ("13.0", None)
    assert require_gpu("Running", 1).name == "NVIDIA H100"


def test_number_that_is_no_device_is_refused(driver: Callable[[int, int], None]) -> None:
    driver(0, 1)
    with pytest.raises(MissingError, match="Running needs GPU 1, and there are 1"):
        require_gpu("Running", 1)


def test_driver_without_a_device_says_so_in_its_own_words(driver: Callable[[int, int], None]) -> None:
    driver(100, 0)
    with pytest.raises(MissingError, match="no CUDA-capable device is detected"):
        require_gpu("Running")


def test_devices_that_are_hidden_are_told_from_none(driver: Callable[[int, int], None]) -> None:
    driver(0, 0)
    with pytest.raises(MissingError, match="CUDA_VISIBLE_DEVICES"):
        require_gpu("Running")


def test_machine_without_a_driver_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_LIBRARY", "libabsent.so.1")
    with pytest.raises(MissingError, match=r"no NVIDIA driver \(libabsent\.so\.1\): install"):
        require_gpu("Running")
