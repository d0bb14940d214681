"""TensorRT and TensorRT-RTX: a compiled engine on an NVIDIA GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import StageName
from perceiver_deploy.runtimes.checks.inputs import check_inputs
from perceiver_deploy.runtimes.nvidia.dlpack import CUDA, Borrowed, DeviceArray, borrow
from perceiver_deploy.runtimes.nvidia.families import FAMILIES
from perceiver_deploy.runtimes.nvidia.loaded_engine import LoadedEngine
from perceiver_deploy.runtimes.nvidia.requirements import require_pieces
from perceiver_deploy.runtimes.nvidia.side_car import Machine, engine_of, read_side_car, require_loadable
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.settings import DEFAULTS, RuntimeSettings


class TensorRTSession(Session):
    """An engine on one GPU.

    It has one stream, one execution context a profile, and buffers on device and host that are used again by every
    run; runs of several threads take turns. The tightest profile that takes the shapes is used.
    """

    def __init__(self, bundle: Bundle, name: str, settings: RuntimeSettings = DEFAULTS) -> None:
        """Open the bundle's engine of that name.

        Raises:
            MissingError: no GPU, driver, or library; nothing of TensorRT was called.
            BundleError: the engine was changed or cut off, or was built for something else; says how to build it again.
        """
        engine, side_car = bundle.manifest.engines[name], read_side_car(bundle, name)
        super().__init__(bundle.manifest.stages[engine.stage], bundle.manifest.axes, settings)
        family = FAMILIES[side_car.engine]
        self.runtime = family.name
        settings.require_taken_by(self.runtime)
        require_pieces(family.name)
        purpose = f"Running a {family.title} engine"
        module = family.load(purpose)
        machine = Machine.here(module.__version__, purpose, settings.gpu)
        require_loadable(side_car, family, machine, str(bundle.path), name)
        self.device = f"{machine.gpu.name} (GPU {settings.gpu})"
        content = bundle.file(engine.file).read_bytes()
        digest = bundle.manifest.files[engine.file].sha256
        graph = bundle.file(side_car.onnx.file) if side_car.weights_stripped else None
        from perceiver_deploy.runtimes.nvidia.cuda_memory import on_device

        with on_device(settings.gpu):
            self._engine = LoadedEngine(family, module, content, side_car, graph, settings, digest)
        self._lock = threading.Lock()

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, DeviceArray]:
        """Outputs for tensors that are on the GPU already: neither is copied to the host.

        Args:
            inputs: objects with `__dlpack__`, such as `torch.Tensor`, contiguous, on the session's GPU. Their names,
                dtypes and shapes are checked; their values, which would have to be copied for that, are not.

        Returns:
            Outputs by name, computed, for `torch.from_dlpack` and the like.

        Raises:
            InputError: a tensor that the model does not take, or that lies elsewhere.
        """
        from perceiver_deploy.runtimes.nvidia.cuda_memory import on_device

        with self._uses, self._lock, on_device(self.settings.gpu):
            stream = self._engine.stream.handle
            borrowed = {name: borrow(name, tensor, CUDA, self.settings.gpu, stream) for name, tensor in inputs.items()}
            least = {spec.name: spec.minimum or 0 for spec in self.inputs}
            stand_ins = {name: _stand_in(tensor, least.get(name, 0)) for name, tensor in borrowed.items()}
            check_inputs(stand_ins, self.inputs, self.axes)
            return self._engine.run_borrowed(borrowed, self.settings.gpu)

    def _execute(self, inputs: Arrays) -> Arrays:
        from perceiver_deploy.runtimes.nvidia.cuda_memory import on_device

        with self._lock, on_device(self.settings.gpu):
            outputs = self._engine.run(inputs)
        return {spec.name: outputs[spec.name].astype(spec.dtype, copy=False) for spec in self.outputs}

    def _release(self) -> None:
        from perceiver_deploy.runtimes.nvidia.cuda_memory import on_device

        with on_device(self.settings.gpu):
            self._engine.close()


def open_stages(
    runtime: str, bundle: Bundle, variant: str, settings: RuntimeSettings
) -> Callable[[StageName], TensorRTSession]:
    """Opens the engines of a variant's stages."""
    return lambda name: TensorRTSession(bundle, engine_of(bundle, runtime, variant, name), settings)


def _stand_in(tensor: Borrowed, value: int) -> np.ndarray[Any, Any]:
    """An array of that shape and dtype, full of one value, that takes no memory."""
    return np.broadcast_to(np.array(value, tensor.dtype), tensor.shape)
