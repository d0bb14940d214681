"""Memory, streams and graphs of CUDA, as far as running an engine needs them. Imported only where there is a GPU."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from cuda.bindings import runtime as cuda
from numpy.typing import DTypeLike, NDArray

from perceiver_deploy.errors import PerceiverDeployError


def checked(result: tuple[Any, ...]) -> Any:
    """The value that a call gave beside its status.

    Raises:
        PerceiverDeployError: the status is an error, for example that memory is used up.
    """
    status, *values = result
    if status != cuda.cudaError_t.cudaSuccess:
        _, name = cuda.cudaGetErrorName(status)
        _, words = cuda.cudaGetErrorString(status)
        raise PerceiverDeployError(f"CUDA failed: {name.decode()}, {words.decode()}.")
    return values[0] if len(values) == 1 else values or None


class DeviceBuffer:
    """Memory on the current device that grows when more is asked for and is freed with `free`."""

    def __init__(self, bytes_needed: int = 0) -> None:
        self.pointer = 0
        self.bytes = 0
        self.grow(bytes_needed)

    def grow(self, bytes_needed: int) -> bool:
        """Hold at least so many bytes. True where the memory moved; what was in it is lost then."""
        if bytes_needed <= self.bytes:
            return False
        self.free()
        self.pointer, self.bytes = int(checked(cuda.cudaMalloc(bytes_needed))), bytes_needed
        return True

    def free(self) -> None:
        """Give the memory back."""
        if self.pointer:
            cuda.cudaFree(self.pointer)
        self.pointer = self.bytes = 0


class PinnedBuffer:
    """Page-locked memory of the host, which the device copies from and to without the processor."""

    def __init__(self) -> None:
        self.pointer = 0
        self._bytes = 0

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """An array over the buffer, which grows if need be. It is overwritten by the next one."""
        count = math.prod(shape)
        needed = max(1, count * np.dtype(dtype).itemsize)
        if needed > self._bytes:
            self.free()
            self.pointer = int(checked(cuda.cudaHostAlloc(needed, cuda.cudaHostAllocDefault)))
            self._bytes = needed
        view = memoryview((ctypes.c_char * needed).from_address(self.pointer))
        return np.frombuffer(view, np.dtype(dtype), count).reshape(shape)

    def free(self) -> None:
        """Give the memory back; arrays over it must not be used any more."""
        if self.pointer:
            cuda.cudaFreeHost(self.pointer)
        self.pointer = self._bytes = 0


class Stream:
    """An order of work on the device."""

    def __init__(self) -> None:
        self.handle = int(checked(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)))

    def to_device(self, target: int, source: int, count: int) -> None:
        """Copy bytes from pinned memory."""
        kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        checked(cuda.cudaMemcpyAsync(target, source, count, kind, self.handle))

    def to_host(self, target: int, source: int, count: int) -> None:
        """Copy bytes to pinned memory."""
        kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        checked(cuda.cudaMemcpyAsync(target, source, count, kind, self.handle))

    def synchronize(self) -> None:
        """Wait until everything is done."""
        checked(cuda.cudaStreamSynchronize(self.handle))

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Record what `enqueue` puts on the stream, without running it."""
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        checked(cuda.cudaStreamBeginCapture(self.handle, mode))
        try:
            enqueue()
        finally:
            graph = checked(cuda.cudaStreamEndCapture(self.handle))
        return Graph(graph)

    def close(self) -> None:
        """Give the stream back."""
        cuda.cudaStreamDestroy(self.handle)


class Graph:
    """Recorded work, launched as a whole. Addresses are those of the recording."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._executable = checked(cuda.cudaGraphInstantiate(graph, 0))

    def launch(self, stream: Stream) -> None:
        """Put the work on a stream."""
        checked(cuda.cudaGraphLaunch(self._executable, stream.handle))

    def close(self) -> None:
        """Give the graph back."""
        cuda.cudaGraphExecDestroy(self._executable)
        cuda.cudaGraphDestroy(self._graph)


@contextmanager
def on_device(index: int) -> Iterator[None]:
    """Make a device the current one of this thread for a while."""
    before = checked(cuda.cudaGetDevice())
    checked(cuda.cudaSetDevice(index))
    try:
        yield
    finally:
        cuda.cudaSetDevice(before)


def free_memory() -> int:
    """Bytes that are free on the current device."""
    free, _ = checked(cuda.cudaMemGetInfo())
    return int(free)
