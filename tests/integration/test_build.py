from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

import pytest

from perceiver_deploy import build_engine, load
from perceiver_deploy.bundle import Bundle, changed_bundle, sha256
from perceiver_deploy.errors import BundleError, MissingError, PerceiverDeployError, UsageError
from perceiver_deploy.manifest import Engine
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.input_config import TextInput
from perceiver_deploy.model.perceiver import build_model
from perceiver_deploy.pipeline import build
from perceiver_deploy.pipeline.export import export_model

needs_tensorrt = pytest.importorskip("tensorrt_rtx", reason="building engines needs tensorrt-rtx-cu13")
pytest.importorskip("polygraphy", reason="building engines needs polygraphy")

TEXT = PerceiverConfig(
    "text_classification",
    TextInput(262, 64, 24),
    EncoderConfig(8, 32, 1, 2, AttentionConfig(1), AttentionConfig(4)),
    DecoderConfig(1, 32, AttentionConfig(1), 10),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is never changed."""
    path = tmp_path_factory.mktemp("exported") / "text"
    export_model(build_model(TEXT), path, validate=False)
    return path


@pytest.fixture
def text_bundle(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def digests(bundle: Path) -> dict[str, str]:
    return {str(path): sha256(path) for path in sorted(bundle.rglob("*")) if path.is_file()}


def test_engine_is_listed_with_digests_and_its_side_car_holds_the_facts(text_bundle: Path) -> None:
    result = build_engine(text_bundle, shapes=["length=16:32:48", "batch=1:2:4"], compute_capabilities=["8.9", "12.0"])
    bundle = Bundle.open(text_bundle)
    assert bundle.manifest.engines == {"fp32-rtx": Engine(variant="fp32", stage="full", file="engines/fp32-rtx.engine")}
    assert bundle.file("engines/fp32-rtx.engine").stat().st_size == result.engine_bytes
    facts = json.loads(bundle.file("engines/fp32-rtx.json").read_text())
    assert facts == json.loads(json.dumps(result.to_json()))["facts"]
    assert facts["engine"] == "tensorrt-rtx"
    assert facts["tensorrt_version"] == needs_tensorrt.__version__
    assert facts["compute_capabilities"] == ["8.9", "12.0"]
    assert facts["os"] == {"system": platform.system(), "machine": platform.machine()}
    assert facts["precision"] == "fp32"
    graph = {"file": "onnx/fp32.onnx", "sha256": sha256(text_bundle / "onnx/fp32.onnx"), "data": {}}
    assert facts["onnx"] == graph
    assert facts["axes"]["length"] == {"min": 16, "opt": 32, "max": 48}
    assert facts["shape_profiles"] == [
        {name: {"min": [1, 16], "opt": [2, 32], "max": [4, 48]} for name in ("input_ids", "attention_mask")}
    ]
    assert facts["seconds"] > 0


def test_side_car_tells_precision_and_memory_of_the_compiled_engine(text_bundle: Path) -> None:
    small = build_engine(text_bundle, shapes=["batch=1:1:2"], name="small").facts
    large = build_engine(text_bundle, shapes=["batch=1:1:8"], name="large").facts
    assert set(small["gemm_dtypes"]) == {"Float"}
    assert 0 < small["activation_bytes"] < large["activation_bytes"]


def test_driver_is_recorded_where_there_is_one_and_null_where_not(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_DRIVER_VERSION", tmp_path / "version")
    assert build_engine(text_bundle).facts["driver"] is None
    (tmp_path / "version").write_text("580.65.06\n")
    assert build_engine(text_bundle, name="other").facts["driver"] == "580.65.06"


def test_bundle_still_runs_after_a_build(text_bundle: Path) -> None:
    build_engine(text_bundle)
    with load(text_bundle, "onnxruntime") as session:
        assert {spec.name for spec in session.inputs} == {"input_ids", "attention_mask"}


def test_engine_of_the_same_name_is_replaced_only_with_force(text_bundle: Path) -> None:
    build_engine(text_bundle, shapes=["length=16"])
    before = digests(text_bundle)
    with pytest.raises(BundleError, match=r"'fp32-rtx' already.*--force"):
        build_engine(text_bundle, shapes=["length=32"])
    assert digests(text_bundle) == before
    build_engine(text_bundle, shapes=["length=32"], force=True)
    facts = json.loads((text_bundle / "engines/fp32-rtx.json").read_text())
    assert facts["axes"]["length"] == {"min": 32, "opt": 32, "max": 32}
    assert len(Bundle.open(text_bundle).manifest.engines) == 1


def test_engines_of_several_names_live_side_by_side(text_bundle: Path) -> None:
    build_engine(text_bundle, compute_capabilities=["8.9", "8.9"])
    build_engine(text_bundle, name="blackwell", compute_capabilities=["12.0"])
    bundle = Bundle.open(text_bundle)
    assert set(bundle.manifest.engines) == {"fp32-rtx", "blackwell"}
    assert json.loads(bundle.file("engines/fp32-rtx.json").read_text())["compute_capabilities"] == ["8.9"]


@pytest.mark.parametrize(
    ("options", "error", "part"),
    [
        ({"shapes": ["lenght=1:2:3"]}, UsageError, "batch, length"),
        ({"shapes": ["length=1:2"]}, UsageError, "AXIS=MIN:OPT:MAX"),
        ({"shapes": ["length=1:32:128"]}, UsageError, "position table"),
        ({"compute_capabilities": ["9.0"]}, UsageError, "12.1"),
        ({"compute_capabilities": []}, UsageError, "at least one"),
        ({"name": "../engine"}, UsageError, "'../engine'"),
        ({"engine": "onnxruntime"}, UsageError, "expected tensorrt-rtx"),
        ({"engine": "tensorrt"}, MissingError, "builds tensorrt-rtx only"),
        ({"variant": "int8"}, BundleError, "no variant 'int8'"),
    ],
)
def test_option_that_cannot_be_used_leaves_the_bundle_as_it_was(
    text_bundle: Path, options: dict[str, object], error: type[PerceiverDeployError], part: str
) -> None:
    before = digests(text_bundle)
    with pytest.raises(error) as caught:
        build_engine(text_bundle, **options)
    assert part in str(caught.value)
    assert digests(text_bundle) == before


def test_variant_for_other_runtimes_is_refused(text_bundle: Path) -> None:
    with changed_bundle(text_bundle) as (staging, bundle):
        only_cpu = bundle.variant("fp32").model_copy(update={"runtimes": ("onnxruntime", "openvino")})
        staging.finish(bundle.manifest.model_copy(update={"variants": {"fp32": only_cpu}}))
    with pytest.raises(BundleError, match="'fp32' is for onnxruntime, openvino, not for tensorrt-rtx"):
        build_engine(text_bundle)


def test_graph_that_was_changed_is_not_compiled(text_bundle: Path) -> None:
    (text_bundle / "onnx/fp32.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match="was changed"):
        build_engine(text_bundle)
    assert not (text_bundle / "engines").exists()
