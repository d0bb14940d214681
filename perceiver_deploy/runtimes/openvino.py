"""OpenVINO on the CPU, in the precision that the graph says unless a hint allows less."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import MissingError, PerceiverDeployError, requires
from perceiver_deploy.manifest import Axis, Stage
from perceiver_deploy.runtimes.refusal import refusal
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.settings import DEFAULTS, Hint, RuntimeSettings

with requires("cpu", "Running with openvino"):
    import openvino

    from perceiver_deploy.runtimes.compiled_models import compile_or_reuse

_CAPABILITIES: dict[Hint, str] = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


def compile_options(settings: RuntimeSettings) -> dict[str, Any]:
    """What the CPU plugin is told.

    The precision hint is given in any case: left alone, the plugin computes in bf16 on CPUs that have it. The cache of
    kernels that were made for other sizes holds one: with more, an attention that once ran over a single token gives
    wrong numbers at every later size (seen in 2026.4); with none, OpenVINO does not fuse attentions over many tokens.
    """
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": settings.hint,
        "PERFORMANCE_HINT": "LATENCY",
        "CPU_RUNTIME_CACHE_CAPACITY": 1,
    }
    if settings.threads is not None:
        options["INFERENCE_NUM_THREADS"] = settings.threads
    return options


class OpenVinoSession(Session):
    """A graph in OpenVINO's CPU plugin."""

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
        options = compile_options(settings)
        try:
            if digest is not None and settings.keep_compiled:
                self._model = compile_or_reuse(file, digest, options)
            else:
                self._model = openvino.Core().compile_model(str(file), "CPU", options)
        except RuntimeError as error:
            raise refusal(f"openvino {openvino.__version__}", file, error) from error
        self._idle: list[Any] = []  # requests that no thread is using

    def _execute(self, inputs: Arrays) -> Arrays:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        try:
            # in the plugin's own thread: what `infer` keeps for each thread that calls it grows (seen in 2026.4)
            request.start_async(inputs, share_inputs=True)
            request.wait()
            return {spec.name: np.array(request.get_tensor(spec.name).data) for spec in self.outputs}
        except RuntimeError as error:
            raise PerceiverDeployError(f"openvino failed while running: {error}") from error
        finally:
            self._idle.append(request)

    def _release(self) -> None:
        del self._idle, self._model


def native_hints() -> list[Hint]:
    """Hints that this processor computes in."""
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [hint for hint, capability in _CAPABILITIES.items() if capability in capabilities]
