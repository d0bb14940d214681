"""ONNX Runtime on an NVIDIA GPU: its CUDA and TensorRT providers, and NVIDIA's plugin for TensorRT-RTX.

onnxruntime runs a graph on the CPU where a provider cannot be had, and says so on stderr only. Here what a provider
needs is checked before, and that it was taken afterwards.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Axis, Precision, Stage, StageName
from perceiver_deploy.cache import cache_directory
from perceiver_deploy.errors import MissingError, PerceiverDeployError
from perceiver_deploy.runtimes.catalogue import GpuRuntime
from perceiver_deploy.runtimes.load_errors import refusal
from perceiver_deploy.runtimes.nvidia.gpu import require_gpu
from perceiver_deploy.runtimes.nvidia.profiles import default_sizes, input_profile
from perceiver_deploy.runtimes.nvidia.requirements import PLUGIN_MODULE, PROVIDERS, require_pieces
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.settings import DEFAULTS, RuntimeSettings

_FLAGS: dict[Precision, dict[str, str]] = {
    "fp32": {},
    "fp16": {"trt_fp16_enable": "1", "trt_layer_norm_fp32_fallback": "1"},
    "bf16": {"trt_bf16_enable": "1"},
    "int8-weights": {},
    "int8": {"trt_int8_enable": "1"},
}
"""The TensorRT provider builds weakly typed networks: what a layer may compute in has to be allowed."""


class OnnxRuntimeGpuSession(Session):
    """A graph in one of onnxruntime's providers for NVIDIA GPUs.

    The operators that work out shapes run on the CPU, as onnxruntime places them. The providers of TensorRT build an
    engine when the session is opened, for the default profile of the model (see `runtimes.profiles`), and keep it
    in the user's cache.
    """

    def __init__(
        self,
        runtime: GpuRuntime,
        file: Path,
        stage: Stage,
        axes: Mapping[str, Axis],
        precision: Precision,
        settings: RuntimeSettings = DEFAULTS,
    ) -> None:
        """Open the graph in `file`.

        Raises:
            MissingError: no GPU, driver, provider or library, or the provider did not take the graph.
            BundleError: the graph cannot be read.
        """
        super().__init__(stage, axes, settings)
        settings.require_taken_by(runtime)
        require_pieces(runtime)
        self.runtime = runtime
        self.device = f"{require_gpu(f'Runtime {runtime!r}', settings.gpu).name} (GPU {settings.gpu})"
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if settings.threads is not None:
            options.intra_op_num_threads = settings.threads
        provider = PROVIDERS[runtime]
        chosen = provider_options(runtime, stage, axes, precision, settings)
        try:
            if runtime == "onnxruntime-tensorrt-rtx":
                _add_plugin(options, provider, settings.gpu, chosen)
                self._session = onnxruntime.InferenceSession(str(file), options)
            else:
                providers = [(provider, chosen), "CPUExecutionProvider"]
                self._session = onnxruntime.InferenceSession(str(file), options, providers=providers)
                self._session.disable_fallback()
        except PerceiverDeployError:
            raise
        except Exception as error:  # onnxruntime raises a class of its own for every status code
            raise refusal(f"onnxruntime {onnxruntime.__version__} ({provider})", file, error) from error
        if provider not in self._session.get_providers():
            raise MissingError(
                f"onnxruntime {onnxruntime.__version__} did not take {provider} and would run on the CPU. "
                "See what it said on stderr, and: perceiver-deploy doctor"
            )
        self._names = [spec.name for spec in self.outputs]

    def _execute(self, inputs: Arrays) -> Arrays:
        try:
            return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))
        except Exception as error:  # a class of its own for every status code
            raise PerceiverDeployError(f"{self.runtime} failed while running: {error}") from error

    def _release(self) -> None:
        del self._session


def provider_options(
    runtime: GpuRuntime, stage: Stage, axes: Mapping[str, Axis], precision: Precision, settings: RuntimeSettings
) -> dict[str, str]:
    """Options of the provider: device, no TF32 where that can be said, explicit profiles, where engines are kept."""
    device = {"device_id": str(settings.gpu)}
    if runtime == "onnxruntime-cuda":
        return {**device, "use_tf32": "0"}
    profile = input_profile(stage, {name: default_sizes(name, axis) for name, axis in axes.items()})
    shapes = {
        which: ",".join(f"{name}:{'x'.join(map(str, getattr(each, which)))}" for name, each in profile.items())
        for which in ("min", "opt", "max")
    }
    folder = cache_directory() / runtime
    folder.mkdir(parents=True, exist_ok=True)
    if runtime == "onnxruntime-tensorrt-rtx":
        return {
            **{f"nv_profile_{which}_shapes": text for which, text in shapes.items()},
            "nv_runtime_cache_path": str(folder),
        }
    return {
        **device,
        **_FLAGS[precision],
        **{f"trt_profile_{which}_shapes": text for which, text in shapes.items()},
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }


def _add_plugin(options: Any, provider: str, gpu: int, chosen: Mapping[str, str]) -> None:
    """Register NVIDIA's plugin, once a process, and give it the device."""
    import onnxruntime

    plugin = importlib.import_module(PLUGIN_MODULE)
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == provider]
    if not devices:
        onnxruntime.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
        devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == provider]
    if gpu >= len(devices):
        raise MissingError(
            f"{provider} takes {len(devices)} of the GPUs of this machine; expected number {gpu} among them."
        )
    options.add_provider_for_devices([devices[gpu]], dict(chosen))


def open_stages(
    runtime: GpuRuntime, bundle: Bundle, variant: str, settings: RuntimeSettings
) -> Callable[[StageName], OnnxRuntimeGpuSession]:
    """Opens the stages of a variant."""
    manifest, chosen = bundle.manifest, bundle.variant(variant)
    return lambda name: OnnxRuntimeGpuSession(
        runtime, bundle.file(chosen.files[name]), manifest.stages[name], manifest.axes, chosen.precision, settings
    )
