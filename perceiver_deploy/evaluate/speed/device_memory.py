"""What this process holds of the memory of NVIDIA GPUs, as the driver counts it."""

from __future__ import annotations

import os


def device_bytes() -> int | None:
    """Memory of all GPUs that this process holds now; None without NVIDIA's driver, or without nvidia-ml-py.

    Runtimes keep what they took until a session is closed, so after a run it is what that run needed.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        processes = [
            process
            for index in range(pynvml.nvmlDeviceGetCount())
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(index))
        ]
    finally:
        pynvml.nvmlShutdown()
    return sum(process.usedGpuMemory or 0 for process in processes if process.pid == os.getpid())
