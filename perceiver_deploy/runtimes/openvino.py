"""OpenVINO on the CPU, in float32 unless the graph says otherwise."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import PerceiverDeployError, requires
from perceiver_deploy.manifest import Axis, Stage
from perceiver_deploy.runtimes.refusal import refusal
from perceiver_deploy.runtimes.session import Session

with requires("cpu", "Running with openvino"):
    import openvino


class OpenVinoSession(Session):
    """A graph in OpenVINO's CPU plugin. `threads` None leaves the number of threads to it.

    The precision hint is f32: left alone, the plugin computes in bf16 on CPUs that have it. The cache of kernels that
    were made for other sizes holds one: with more, an attention that once ran over a single token gives wrong numbers
    at every later size (seen in 2026.4); with none, OpenVINO does not fuse attentions over many tokens.
    """

    runtime = "openvino"
    device = "cpu"

    def __init__(self, file: Path, stage: Stage, axes: Mapping[str, Axis], threads: int | None = None) -> None:
        super().__init__(stage, axes)
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "CPU_RUNTIME_CACHE_CAPACITY": 1,
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = openvino.Core().compile_model(str(file), "CPU", options)
        except RuntimeError as error:
            raise refusal(f"openvino {openvino.__version__}", file, error) from error
        self._local = threading.local()

    def _execute(self, inputs: Arrays) -> Arrays:
        if not hasattr(self._local, "request"):
            self._local.request = self._model.create_infer_request()
        try:
            results = self._local.request.infer(inputs, share_inputs=True)
        except RuntimeError as error:
            raise PerceiverDeployError(f"openvino failed while running: {error}") from error
        return {spec.name: np.array(results[spec.name]) for spec in self.outputs}

    def _release(self) -> None:
        del self._model, self._local
