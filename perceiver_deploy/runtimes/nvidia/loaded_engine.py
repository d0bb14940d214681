"""An engine in memory: its contexts, its stream, and the buffers that its runs use again."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.cache import Store
from perceiver_deploy.errors import BundleError, PerceiverDeployError
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.nvidia.dlpack import CUDA, Borrowed, DeviceArray
from perceiver_deploy.runtimes.nvidia.families import Family
from perceiver_deploy.runtimes.nvidia.side_car import SideCar
from perceiver_deploy.runtimes.settings import RuntimeSettings

if TYPE_CHECKING:
    import tensorrt as trt

    from perceiver_deploy.runtimes.nvidia.cuda_memory import DeviceBuffer, Graph, PinnedBuffer

_KERNELS = Store("kernels", "")


class LoadedEngine:
    """An engine with its contexts, stream and buffers, on the current device. Not thread-safe."""

    def __init__(
        self,
        family: Family,
        module: Any,
        content: bytes,
        side_car: SideCar,
        graph: Path | None,
        settings: RuntimeSettings,
        digest: str,
    ) -> None:
        from perceiver_deploy.runtimes.nvidia.cuda_memory import Stream

        self._family, self._trt, self._side_car = family, module, side_car
        self._messages = _logger(module)
        self._runtime: trt.Runtime = module.Runtime(self._messages)
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise BundleError(
                f"{family.title} {module.__version__} cannot load the engine: {self._messages.last_error()}. "
                "Build it again, with --force."
            )
        self._engine: trt.ICudaEngine = engine
        if graph is not None:
            self._put_weights_in(graph)
        self._capture = settings.cuda_graph and not family.captures_graphs
        self._kernels_key = f"{module.__version__}-{digest}"
        self._config = self._runtime_config(settings) if family.captures_graphs else None
        self._contexts: dict[int, trt.IExecutionContext] = {}
        self._device: dict[str, DeviceBuffer] = {}
        self._host: dict[str, PinnedBuffer] = {}
        self._graphs: dict[tuple[Any, ...], Graph] = {}
        self.stream = Stream()

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs, in memory of their own."""
        shapes = {name: array.shape for name, array in inputs.items()}
        context = self._context(shapes)
        for name, array in inputs.items():
            staged = self._pinned(name).array(array.shape, array.dtype)
            np.copyto(staged, array)
            if self._on_host(name):
                context.set_tensor_address(name, self._pinned(name).pointer)
                continue
            self._place(context, name, array.nbytes)
            self.stream.to_device(self._device[name].pointer, self._pinned(name).pointer, array.nbytes)
        outputs = self._outputs(context)
        for name, (shape, dtype) in outputs.items():
            self._place(context, name, _nbytes(shape, dtype))
        self._launch(context, shapes)
        arrays = {name: self._pinned(name).array(*output) for name, output in outputs.items()}
        for name, array in arrays.items():
            self.stream.to_host(self._pinned(name).pointer, self._device[name].pointer, array.nbytes)
        self.stream.synchronize()
        return {name: array.copy() for name, array in arrays.items()}

    def run_borrowed(self, inputs: Mapping[str, Borrowed], device: int) -> dict[str, DeviceArray]:
        """Outputs on the device, in memory of their own, for inputs that are there."""
        from perceiver_deploy.runtimes.nvidia.cuda_memory import DeviceBuffer

        context = self._context({name: tensor.shape for name, tensor in inputs.items()})
        for name, tensor in inputs.items():
            context.set_tensor_address(name, tensor.pointer)
        arrays = {}
        for name, (shape, dtype) in self._outputs(context).items():
            buffer = DeviceBuffer(max(1, _nbytes(shape, dtype)))
            context.set_tensor_address(name, buffer.pointer)
            arrays[name] = DeviceArray(buffer.pointer, shape, dtype, (CUDA, device), buffer.free)
        self._enqueue(context)
        self.stream.synchronize()
        return arrays

    def close(self) -> None:
        """Keep the kernels that were made while running, and free everything."""
        self._keep_kernels()
        for graph in self._graphs.values():
            graph.close()
        for buffer in self._device.values():
            buffer.free()
        for pinned in self._host.values():
            pinned.free()
        self._contexts.clear()
        self.stream.close()
        del self._engine, self._config, self._runtime

    def _context(self, shapes: Mapping[str, tuple[int, ...]]) -> trt.IExecutionContext:
        number = self._side_car.profile_for(shapes)
        if number not in self._contexts:
            context = self._engine.create_execution_context(*([self._config] if self._config is not None else []))
            if context is None or not context.set_optimization_profile_async(number, self.stream.handle):
                reason = self._messages.last_error()
                raise PerceiverDeployError(
                    f"{self._family.title} cannot set up profile {number} of the engine: {reason}. "
                    "Free memory of the GPU, or build an engine for smaller shapes: --shapes"
                )
            self._contexts[number] = context
        context = self._contexts[number]
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                reason = self._messages.last_error()
                raise PerceiverDeployError(f"{self._family.title} refuses {name} {list(shape)}: {reason}")
        return context

    def _outputs(self, context: trt.IExecutionContext) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of each output for the input shapes that were set."""
        found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.OUTPUT:
                dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
                found[name] = (tuple(context.get_tensor_shape(name)[:]), dtype)
        return found

    def _place(self, context: trt.IExecutionContext, name: str, count: int) -> None:
        """Give a tensor its buffer; graphs that were recorded with another address are dropped."""
        from perceiver_deploy.runtimes.nvidia.cuda_memory import DeviceBuffer

        if self._device.setdefault(name, DeviceBuffer()).grow(max(1, count)):
            for graph in self._graphs.values():
                graph.close()
            self._graphs.clear()
        context.set_tensor_address(name, self._device[name].pointer)

    def _launch(self, context: trt.IExecutionContext, shapes: Mapping[str, tuple[int, ...]]) -> None:
        key = tuple(sorted(shapes.items()))
        if not self._capture:
            self._enqueue(context)
        elif key in self._graphs:
            self._graphs[key].launch(self.stream)
        else:
            self._enqueue(context)  # the first run of a shape sets up what may not be recorded
            self._graphs[key] = self.stream.capture(lambda: self._enqueue(context))

    def _enqueue(self, context: trt.IExecutionContext) -> None:
        if not context.execute_async_v3(self.stream.handle):
            raise PerceiverDeployError(f"{self._family.title} failed while running: {self._messages.last_error()}.")

    def _pinned(self, name: str) -> PinnedBuffer:
        from perceiver_deploy.runtimes.nvidia.cuda_memory import PinnedBuffer

        return self._host.setdefault(name, PinnedBuffer())

    def _on_host(self, name: str) -> bool:
        """Whether the engine reads a tensor on the host, because shapes depend on it."""
        return bool(self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST)

    def _put_weights_in(self, graph: Path) -> None:
        refitter = self._trt.Refitter(self._engine, self._messages)
        parser = self._trt.OnnxParserRefitter(refitter, self._messages)
        if not parser.refit_from_file(str(graph)) or not refitter.refit_cuda_engine():
            raise BundleError(
                f"The weights of {graph} do not fit the engine, which has none of its own: "
                f"{self._messages.last_error()}. Build the engine again, with --force."
            )

    def _runtime_config(self, settings: RuntimeSettings) -> Any:
        """How TensorRT-RTX makes its kernels: those of earlier sessions are used again."""
        config: Any = self._engine.create_runtime_config()  # TensorRT's own has none of what is set here
        strategy = self._trt.CudaGraphStrategy
        config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if settings.cuda_graph else strategy.DISABLED
        kernels = config.create_runtime_cache()
        if (kept := _KERNELS.read(self._kernels_key)) is not None:
            kernels.deserialize(kept)
        config.set_runtime_cache(kernels)
        return config

    def _keep_kernels(self) -> None:
        if self._config is not None:
            kernels = bytes(self._config.get_runtime_cache().serialize())
            _KERNELS.keep(self._kernels_key, kernels, "What was compiled of the engine")


@functools.cache
def _logger(module: Any) -> Any:
    """What TensorRT says, at its levels, in our log; the last error is for messages. It takes one logger a process."""

    class Messages(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._last = "no reason is given"

        def log(self, severity: Any, text: str) -> None:
            if severity <= module.ILogger.Severity.ERROR:
                self._last = " ".join(text.split())
            level = log.warning if severity <= module.ILogger.Severity.WARNING else log.debug
            level("%s", text)

        def last_error(self) -> str:
            return self._last

    return Messages()


def _nbytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize
