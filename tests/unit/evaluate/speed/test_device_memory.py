"""What a process holds of GPUs, by a driver that is not here: NVML's answers are written out."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from perceiver_deploy.evaluate.speed.device_memory import device_bytes
from perceiver_deploy.runtimes.nvidia.gpu import find_gpus


def test_without_the_package_it_is_not_known(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert device_bytes() is None


def test_without_a_driver_it_is_not_known():
    pytest.importorskip("pynvml")
    if find_gpus().problem is None:
        pytest.skip("there is a GPU")
    assert device_bytes() is None


def test_memory_of_this_process_on_all_gpus_is_added_and_that_of_others_is_not(monkeypatch):
    mine, other = os.getpid(), os.getpid() + 1
    held = [[(mine, 300), (other, 7000)], [(mine, 20), (mine, None)]]
    closed = []
    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: closed.append(True),
        nvmlDeviceGetCount=lambda: len(held),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetComputeRunningProcesses=lambda index: [
            SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in held[index]
        ],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert device_bytes() == 320
    assert closed
