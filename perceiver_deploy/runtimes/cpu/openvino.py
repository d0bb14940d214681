"""OpenVINO on the CPU, in the precision that the graph says unless a hint allows less."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Axis, Stage, StageName, evaluate_size, opt_sizes
from perceiver_deploy.errors import MissingError, PerceiverDeployError, requires
from perceiver_deploy.machine import has_int8_products, is_x86
from perceiver_deploy.runtimes.load_errors import refusal
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.settings import DEFAULTS, Hint, RuntimeSettings

with requires("cpu", "Running with openvino"):
    import openvino

    from perceiver_deploy.runtimes.cpu.compiled_models import Shapes, compile_model, compile_or_reuse

MOST_SHAPES = 8
"""For which a session with static shapes keeps a compiled model."""
SMALL: Shapes = ()
"""What stands for small inputs among shapes; see `_is_small`."""
_CAPABILITIES: dict[Hint, str] = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


def compile_options(settings: RuntimeSettings) -> dict[str, Any]:
    """What the CPU plugin is told.

    The precision hint is given in any case: left alone, the plugin computes in bf16 on CPUs that have it. The cache of
    kernels that were made for other sizes holds one: with more, an attention that once ran over a single token gives
    wrong numbers at every later size (seen in 2026.4); with none, OpenVINO does not fuse attentions over many tokens.

    Products whose weight alone is INT8 are computed in float32: left alone, the plugin rounds the other operand to INT8
    too, group by group (2026.4; 0.3 to 2 % off what the graph says).

    On x86 processors without INT8 dot products its own INT8 saturates where two activations are multiplied, and is
    slower than float32; on Arm with them it was off by 0.5 to 1.2 (2026.4, in QEMU). There it computes what the Q/DQ
    pairs say in float32.
    """
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": settings.hint,
        "PERFORMANCE_HINT": "LATENCY",
        "CPU_RUNTIME_CACHE_CAPACITY": 1,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    if settings.threads is not None:
        options["INFERENCE_NUM_THREADS"] = settings.threads
    if has_int8_products() is False or not is_x86():
        options["LP_TRANSFORMS_MODE"] = "NO"
    return options


class OpenVinoSession(Session):
    """A graph in OpenVINO's CPU plugin.

    As long as the thread that opened the session is the only one that calls, runs are in that thread. From the first
    call of another on, all are in one of the plugin's, which takes about 0.1 ms longer to begin: what OpenVINO keeps
    for each thread that runs grows without end where several do (seen in 2026.4).

    With shapes that may change, small inputs have a compiled model of their own, without fused attentions: one that ran
    over a few sizes and then over a single token gives wrong numbers at the next size (seen in 2026.4).
    """

    runtime = "openvino"
    device = "cpu"

    def __init__(
        self,
        file: Path,
        stage: Stage,
        axes: Mapping[str, Axis],
        settings: RuntimeSettings = DEFAULTS,
        digest: str | None = None,
    ) -> None:
        """`digest`, of the graph and its weights, is what the compiled model is kept under; without it, it is not."""
        super().__init__(stage, axes, settings)
        settings.require_taken_by(self.runtime)
        if settings.hint not in native_hints():
            raise MissingError(
                f"hint is {settings.hint!r}, which this processor does not compute in; OpenVINO would take float32. "
                f"Expected {', '.join(native_hints())}."
            )
        self._only_caller: int | None = threading.get_ident()
        self._file, self._digest = file, digest if settings.keep_compiled else None
        self._compiled: dict[Shapes | None, _Compiled] = {}  # those used last at the end
        self._limits = [
            (spec.name, at, max(self.axes[str(size)].min, self.axes[str(size)].opt // 4))
            for spec in self.inputs
            for at, size in enumerate(spec.shape)
            if size in self.axes and size != "batch"
        ]
        self._compiling, self._changing = threading.Lock(), threading.Lock()
        self._compiled_for(self._usual_shapes() if settings.static_shapes else None)

    def _usual_shapes(self) -> Shapes:
        usual = opt_sizes(self.axes)
        return tuple((spec.name, tuple(evaluate_size(size, usual) for size in spec.shape)) for spec in self.inputs)

    def _execute(self, inputs: Arrays) -> Arrays:
        if self.settings.static_shapes:
            shapes: Shapes | None = tuple((name, array.shape) for name, array in inputs.items())
        else:
            shapes = SMALL if self._is_small(inputs) else None
        if threading.get_ident() != self._only_caller:
            self._only_caller = None
        try:
            return self._compiled_for(shapes).run(inputs, here=self._only_caller is not None)
        except RuntimeError as error:
            raise PerceiverDeployError(f"openvino failed while running: {error}") from error

    def _is_small(self, inputs: Arrays) -> bool:
        """Whether every axis but the batch is at most a quarter of its usual size, so that there may be one token."""
        return bool(self._limits) and all(inputs[name].shape[at] <= limit for name, at, limit in self._limits)

    def _compiled_for(self, shapes: Shapes | None) -> _Compiled:
        """Runs at shapes that are compiled do not wait while others are."""
        if (found := self._use(shapes)) is not None:
            return found
        with self._compiling:
            if (found := self._use(shapes)) is not None:
                return found
            found = _Compiled(self._compile(shapes), [spec.name for spec in self.outputs])
            with self._changing:
                self._compiled[shapes] = found
                if len(self._compiled) > MOST_SHAPES:
                    del self._compiled[next(iter(self._compiled))]
            return found

    def _use(self, shapes: Shapes | None) -> _Compiled | None:
        with self._changing:
            if (found := self._compiled.pop(shapes, None)) is not None:
                self._compiled[shapes] = found
            return found

    def _compile(self, shapes: Shapes | None) -> openvino.CompiledModel:
        options = compile_options(self.settings)
        if shapes == SMALL:
            shapes, options = None, options | {"SNIPPETS_MODE": "DISABLE"}
        try:
            if self._digest is None:
                return compile_model(self._file, shapes, options)
            return compile_or_reuse(self._file, self._digest, shapes, options)
        except RuntimeError as error:
            raise refusal(f"openvino {openvino.__version__}", self._file, error) from error

    def _release(self) -> None:
        self._compiled.clear()


class _Compiled:
    """A compiled model, and its requests that no thread is using."""

    def __init__(self, model: openvino.CompiledModel, outputs: Sequence[str]) -> None:
        self._model = model
        self._outputs = outputs
        self._idle: list[_Request] = []

    def run(self, inputs: Arrays, *, here: bool) -> Arrays:
        """Outputs by name, from a run in the calling thread or in one of the plugin's.

        Raises:
            RuntimeError: the run failed.
        """
        try:
            request = self._idle.pop()
        except IndexError:
            request = _Request(self._model, self._outputs)
        outputs = request.run(inputs, here=here)
        self._idle.append(request)  # not one that failed
        return outputs


class _Request:
    """A request that copies inputs into memory of its own.

    Handing the caller's arrays to OpenVINO takes 0.1 ms in every run, which may be a quarter of it. Outputs stay where
    they are if their shapes are static.
    """

    def __init__(self, model: openvino.CompiledModel, outputs: Sequence[str]) -> None:
        self._request = model.create_infer_request()
        self._inputs: Arrays = {}
        self._outputs: dict[str, NDArray[np.generic] | None] = {
            name: self._request.get_tensor(name).data if model.output(name).partial_shape.is_static else None
            for name in outputs
        }

    def run(self, inputs: Arrays, *, here: bool) -> Arrays:
        for name, array in inputs.items():
            memory = self._inputs.get(name)
            if memory is None or memory.shape != array.shape:
                memory = self._inputs[name] = self._resized(name, array.shape)
            memory[...] = array
        if here:
            self._request.infer(share_outputs=True)
        else:
            self._request.start_async()
            self._request.wait()
        return {
            name: (self._request.get_tensor(name).data if memory is None else memory).copy()
            for name, memory in self._outputs.items()
        }

    def _resized(self, name: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
        tensor = self._request.get_tensor(name)
        if tuple(tensor.shape) != shape:
            tensor.shape = shape
        return tensor.data


def native_hints() -> list[Hint]:
    """Hints that this processor computes in."""
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [hint for hint, capability in _CAPABILITIES.items() if capability in capabilities]


def open_stages(
    runtime: str, bundle: Bundle, variant: str, settings: RuntimeSettings
) -> Callable[[StageName], OpenVinoSession]:
    """Opens the stages of a variant."""
    manifest, files = bundle.manifest, bundle.variant(variant).files
    return lambda name: OpenVinoSession(
        bundle.file(files[name]), manifest.stages[name], manifest.axes, settings, bundle.graph_digest(files[name])
    )
