from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Axis, Stage, TensorSpec
from perceiver_deploy.errors import MissingError, UsageError
from perceiver_deploy.runtimes.nvidia import onnxruntime as onnxruntime_gpu
from perceiver_deploy.runtimes.nvidia.gpu import Gpu
from perceiver_deploy.runtimes.nvidia.onnxruntime import OnnxRuntimeGpuSession, provider_options
from perceiver_deploy.runtimes.settings import RuntimeSettings

AXES = {"batch": Axis(opt=1), "length": Axis(min=1, opt=16, max=64)}
STAGE = Stage(
    inputs=tuple(
        TensorSpec(name=name, dtype="int64", shape=("batch", "length")) for name in ("input_ids", "attention_mask")
    ),
    outputs=(),
)
SETTINGS = RuntimeSettings(gpu=1)


def test_cuda_runs_without_tf32_on_the_chosen_gpu() -> None:
    options = provider_options("onnxruntime-cuda", STAGE, AXES, "fp16", SETTINGS)
    assert options == {"device_id": "1", "use_tf32": "0"}


@pytest.mark.parametrize(
    ("precision", "flags"),
    [
        ("fp32", set()),
        ("fp16", {"trt_fp16_enable", "trt_layer_norm_fp32_fallback"}),
        ("bf16", {"trt_bf16_enable"}),
        ("int8", {"trt_int8_enable"}),
    ],
)
def test_tensorrt_gets_explicit_profiles_and_what_the_precision_allows(precision: str, flags: set[str]) -> None:
    options = provider_options("onnxruntime-tensorrt", STAGE, AXES, precision, SETTINGS)
    assert options["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1"
    assert options["trt_profile_opt_shapes"] == "input_ids:1x16,attention_mask:1x16"
    assert options["trt_profile_max_shapes"] == "input_ids:4x64,attention_mask:4x64"
    allowed = {"trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_layer_norm_fp32_fallback"}
    assert allowed & options.keys() == flags
    assert Path(options["trt_engine_cache_path"]).is_dir()


def test_plugin_gets_explicit_profiles_and_a_cache() -> None:
    options = provider_options("onnxruntime-tensorrt-rtx", STAGE, AXES, "int8", SETTINGS)
    assert options["nv_profile_max_shapes"] == "input_ids:4x64,attention_mask:4x64"
    assert Path(options["nv_runtime_cache_path"]).is_dir()


def test_provider_that_onnxruntime_replaces_by_the_cpu_is_an_error(
    shared_bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_gpu, "require_pieces", lambda runtime: None)
    monkeypatch.setattr(onnxruntime_gpu, "require_gpu", lambda purpose, index: Gpu("a GPU", "8.9", 1))
    bundle = Bundle.open(shared_bundle("text_classification"))
    file, stage = bundle.file("onnx/fp32.onnx"), bundle.manifest.stages["full"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says on stderr that it takes the CPU
        with pytest.raises(MissingError, match="did not take CUDAExecutionProvider and would run on the CPU"):
            OnnxRuntimeGpuSession("onnxruntime-cuda", file, stage, bundle.manifest.axes, "fp32")


def test_setting_that_only_native_engines_take_is_refused(shared_bundle: Callable[[str], Path]) -> None:
    bundle = Bundle.open(shared_bundle("text_classification"))
    file, stage = bundle.file("onnx/fp32.onnx"), bundle.manifest.stages["full"]
    with pytest.raises(UsageError, match="cuda_graph is True, and onnxruntime-cuda does not take it"):
        OnnxRuntimeGpuSession(
            "onnxruntime-cuda", file, stage, bundle.manifest.axes, "fp32", RuntimeSettings(cuda_graph=True)
        )
