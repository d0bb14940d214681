"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Axis, Stage, StageName
from perceiver_deploy.errors import PerceiverDeployError, requires
from perceiver_deploy.machine import has_int8_products
from perceiver_deploy.runtimes.load_errors import refusal
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.settings import DEFAULTS, RuntimeSettings
from perceiver_deploy.runtimes.stages.staged import StagedSession

with requires("cpu", "Running with onnxruntime"):
    import onnxruntime


def session_options(settings: RuntimeSettings, *, weights_only: bool = False) -> onnxruntime.SessionOptions:
    """What the CPU provider is told.

    Products whose weight alone is INT8 are computed in float32: left alone, onnxruntime rounds the other operand to
    INT8 too, block by block (1.32; 1 to 2 % off what the graph says). Where all weights are so (`weights_only`), they
    are dequantised when the session opens: kept in INT8, they took 1.4 times as long and, packed anew for each product,
    more memory than in float32.

    On processors without INT8 dot products pairs of Q/DQ stay where the graph has them. Moved behind a Reshape or
    Transpose, some stay signed where onnxruntime makes all others unsigned, and the product of two signed activations
    saturates there (1.32); where they are, it is computed in float32.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if weights_only:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if has_int8_products() is False:
        options.add_session_config_entry("optimization.disable_specified_optimizers", "QDQPropagationTransformer")
    options.enable_cpu_mem_arena = settings.memory_arena
    if settings.threads is not None:
        options.intra_op_num_threads = settings.threads
    return options


class OnnxRuntimeSession(Session):
    """A graph in ONNX Runtime's CPU provider."""

    runtime = "onnxruntime"
    device = "cpu"

    def __init__(
        self,
        file: Path,
        stage: Stage,
        axes: Mapping[str, Axis],
        settings: RuntimeSettings = DEFAULTS,
        options: onnxruntime.SessionOptions | None = None,
    ) -> None:
        """`options` are those of the provider; by default what the settings mean."""
        super().__init__(stage, axes, settings)
        settings.require_taken_by(self.runtime)
        options = options or session_options(settings)
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a class of its own for every status code
            raise refusal(f"onnxruntime {onnxruntime.__version__}", file, error) from error
        self._names = [spec.name for spec in self.outputs]

    def _execute(self, inputs: Arrays) -> Arrays:
        try:
            return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))
        except Exception as error:  # a class of its own for every status code
            raise PerceiverDeployError(f"onnxruntime failed while running: {error}") from error

    def _release(self) -> None:
        del self._session


def open_graphs(
    files: Mapping[StageName, Path],
    stages: Mapping[StageName, Stage],
    axes: Mapping[str, Axis],
    options: onnxruntime.SessionOptions | None = None,
) -> StagedSession:
    """The graphs of some stages as one session; `stages` describes `full` in any case."""
    return StagedSession(
        stages["full"],
        axes,
        {name: stages[name] for name in files},
        lambda name: OnnxRuntimeSession(files[name], stages[name], axes, options=options),
    )


def open_stages(
    runtime: str, bundle: Bundle, variant: str, settings: RuntimeSettings
) -> Callable[[StageName], OnnxRuntimeSession]:
    """Opens the stages of a variant."""
    manifest, chosen = bundle.manifest, bundle.variant(variant)
    options = session_options(settings, weights_only=chosen.precision == "int8-weights")
    return lambda name: OnnxRuntimeSession(
        bundle.file(chosen.files[name]), manifest.stages[name], manifest.axes, settings, options
    )
