"""A device made of host memory: enough of CUDA and TensorRT to run `LoadedEngine`, whose engine is an ONNX file.

Work is done when its stream is waited for, not when it is put there, so that a result that is read too early is wrong
here too. Memory is overwritten when it is freed.
"""

# ruff: noqa: N802, N815 (the names are those of CUDA and TensorRT)

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from perceiver_deploy.bundle.manifest import Stage, evaluate_size

OK = (0,)


class HostCuda:
    """The part of `cuda.bindings.runtime` that `cuda_memory` calls."""

    cudaError_t = SimpleNamespace(cudaSuccess=0)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.capturing: dict[int, list[Callable[[], None]]] = {}
        self.launches = 0

    def put(self, stream: int, work: Callable[[], None]) -> None:
        self.capturing.get(stream, self.streams[stream]).append(work)

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        buffer = ctypes.create_string_buffer(b"\xff" * size, size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return 0, ctypes.addressof(buffer)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[int, int]:
        return self.cudaMalloc(size)

    def cudaFree(self, pointer: int) -> tuple[int]:
        buffer = self.memory.pop(pointer)
        ctypes.memset(pointer, 0xFF, len(buffer))
        return OK

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, target: int, source: int, count: int, kind: int, stream: int) -> tuple[int]:
        self.put(stream, lambda: ctypes.memmove(target, source, count) and None)
        return OK

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:
        handle = len(self.streams) + 1
        self.streams[handle] = []
        return 0, handle

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        work, self.streams[stream] = self.streams[stream], []
        for each in work:
            each()
        return OK

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        return OK

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:
        self.capturing[stream] = []
        return OK

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, list[Callable[[], None]]]:
        return 0, self.capturing.pop(stream)

    def cudaGraphInstantiate(self, graph: list[Callable[[], None]], flags: int) -> tuple[int, Any]:
        return 0, graph

    def cudaGraphLaunch(self, executable: list[Callable[[], None]], stream: int) -> tuple[int]:
        self.launches += 1
        for each in executable:
            self.put(stream, each)
        return OK

    def cudaGraphExecDestroy(self, executable: Any) -> tuple[int]:
        return OK

    cudaGraphDestroy = cudaGraphExecDestroy


class HostTensorRT:
    """The part of TensorRT's module that `LoadedEngine` calls. It "deserialises" an ONNX file."""

    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    TensorLocation = SimpleNamespace(DEVICE="device", HOST="host")
    CudaGraphStrategy = SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole graph")
    __version__ = "10.16.0"

    class ILogger:
        Severity = SimpleNamespace(ERROR=1, WARNING=2)

    def __init__(self, cuda: HostCuda, stage: Stage) -> None:
        self._cuda, self._stage = cuda, stage

    @staticmethod
    def nptype(dtype: str) -> str:
        return dtype

    def Runtime(self, logger: Any) -> Any:
        def deserialize(content: bytes) -> HostEngine | None:
            if len(content) < 100:
                logger.log(1, "Serialization assertion   failed")
                return None
            return HostEngine(self._cuda, self._stage, onnxruntime.InferenceSession(content))

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


class HostEngine:
    def __init__(self, cuda: HostCuda, stage: Stage, session: Any) -> None:
        self._cuda, self._stage, self._session = cuda, stage, session
        self._specs = {spec.name: spec for spec in (*stage.inputs, *stage.outputs)}
        self.num_io_tensors = len(self._specs)
        self.contexts = 0

    def get_tensor_name(self, index: int) -> str:
        return [*self._specs][index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if self._specs[name] in self._stage.inputs else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return self._specs[name].dtype

    def get_tensor_location(self, name: str) -> str:
        return "device"

    def create_runtime_config(self) -> HostRuntimeConfig:
        return HostRuntimeConfig()

    def create_execution_context(self, config: HostRuntimeConfig | None = None) -> HostContext:
        self.contexts += 1
        self.config = config
        return HostContext(self._cuda, self._stage, self._session)


class HostRuntimeConfig:
    """TensorRT-RTX alone has it: how kernels are made, and those that were made."""

    cuda_graph_strategy = ""

    def create_runtime_cache(self) -> HostKernels:
        return HostKernels()

    def set_runtime_cache(self, kernels: HostKernels) -> None:
        self.kernels = kernels

    def get_runtime_cache(self) -> HostKernels:
        return self.kernels


class HostKernels:
    content = b""

    def deserialize(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"kernel,"


class HostContext:
    def __init__(self, cuda: HostCuda, stage: Stage, session: Any) -> None:
        self._cuda, self._stage, self._session = cuda, stage, session
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        (spec,) = [spec for spec in self._stage.outputs if spec.name == name]
        sizes = {
            str(axis): size
            for each in self._stage.inputs
            for axis, size in zip(each.shape, self._shapes[each.name], strict=True)
        }
        return tuple(evaluate_size(size, sizes) for size in spec.shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        shapes |= {spec.name: self.get_tensor_shape(spec.name) for spec in self._stage.outputs}

        def work() -> None:
            arrays = {
                spec.name: view(addresses[spec.name], shapes[spec.name], spec.dtype)
                for spec in (*self._stage.inputs, *self._stage.outputs)
            }
            names = [spec.name for spec in self._stage.outputs]
            results = self._session.run(names, {spec.name: arrays[spec.name] for spec in self._stage.inputs})
            for name, result in zip(names, results, strict=True):
                np.copyto(arrays[name], result)

        self._cuda.put(stream, work)
        return True


def view(address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """An array over memory of that device."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)
