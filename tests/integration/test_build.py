from __future__ import annotations

import errno
import gzip
import json
import platform
import shutil
from pathlib import Path

import pytest

from perceiver_deploy import build_engine, load
from perceiver_deploy import cache as cache_module
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle, sha256
from perceiver_deploy.bundle.manifest import Engine
from perceiver_deploy.errors import BundleError, MissingError, PerceiverDeployError, UsageError
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.text import TextInput
from perceiver_deploy.model.tasks.catalogue import build_model
from perceiver_deploy.pipeline.export.export import export_model
from perceiver_deploy.runtimes.nvidia import gpu

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
    assert facts["axes"][0]["length"] == {"min": 16, "opt": 32, "max": 48}
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
    monkeypatch.setattr(gpu, "_KERNEL_MODULE", tmp_path / "version")
    assert build_engine(text_bundle).facts["driver"] is None
    (tmp_path / "version").write_text("580.65.06\n")
    assert build_engine(text_bundle, name="other").facts["driver"] == "580.65.06"


def test_unchanged_build_is_taken_from_the_cache_and_any_change_is_built(text_bundle: Path) -> None:
    shapes = ["length=7:17:37"]
    first = build_engine(text_bundle, shapes=shapes)
    again = build_engine(text_bundle, shapes=shapes, name="again")
    assert (first.reused, again.reused) == (False, True)
    bundle = Bundle.open(text_bundle)
    assert bundle.file(first.file).read_bytes() == bundle.file(again.file).read_bytes()
    assert again.facts == first.facts
    logs = [gzip.decompress((text_bundle / result.builder_log).read_bytes()) for result in (first, again)]
    assert logs[0] == logs[1]
    assert b"Layers:" in logs[0]
    for name, change in {
        "shapes": {"shapes": ["length=7:17:38"]},
        "capability": {"shapes": shapes, "compute_capabilities": ["12.0"]},
    }.items():
        assert not build_engine(text_bundle, name=name, **change).reused


def test_engine_that_is_damaged_in_the_cache_is_built_again(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "cache_directory", lambda: tmp_path / "cache")
    build_engine(text_bundle)
    (kept,) = (tmp_path / "cache/engines").iterdir()
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert not build_engine(text_bundle, force=True).reused
    kept.write_bytes(content[: len(content) // 2])
    assert not build_engine(text_bundle, force=True).reused
    assert build_engine(text_bundle, force=True).reused


def test_repeated_axis_makes_buckets_in_one_engine(text_bundle: Path) -> None:
    facts = build_engine(text_bundle, shapes=["length=8:16:24", "length=25:40:64", "batch=1:2:4"]).facts
    assert [each["length"] for each in facts["axes"]] == [
        {"min": 8, "opt": 16, "max": 24},
        {"min": 25, "opt": 40, "max": 64},
    ]
    for profile, (least, most) in zip(facts["shape_profiles"], [(8, 24), (25, 64)], strict=True):
        for shapes in profile.values():
            assert (shapes["min"], shapes["max"]) == ((1, least), (4, most))


def test_side_car_says_of_each_attention_whether_tensorrt_can_fuse_it(text_bundle: Path) -> None:
    attentions = build_engine(text_bundle).facts["attentions"]
    assert attentions[0]["module"] == "encoder.cross_attention"
    assert not any(each["fusible"] for each in attentions)
    assert all("only in fp16 or bf16" in each["why_not"] for each in attentions)


def test_full_disk_leaves_the_bundle_as_it_was(text_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digests(text_bundle)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BundleError, match=r"No space left on device.*Free some space"):
        build_engine(text_bundle)
    monkeypatch.undo()
    assert digests(text_bundle) == before


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
    assert facts["axes"][0]["length"] == {"min": 32, "opt": 32, "max": 32}
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
        ({"engine": "onnxruntime"}, UsageError, "expected tensorrt or tensorrt-rtx"),
        ({"engine": "tensorrt"}, MissingError, "NVIDIA GPU"),
        ({"engine": "tensorrt", "compute_capabilities": ["8.9"]}, UsageError, "GPU of this machine"),
        ({"hardware_compatible": True}, UsageError, "--engine tensorrt"),
        ({"refit": True}, MissingError, "NVIDIA GPU"),
        ({"strip_weights": True}, MissingError, "no NVIDIA driver"),
        ({"refit": True, "compute_capabilities": ["8.9", "12.0"]}, UsageError, "one engine for each"),
        ({"stage": "encoder"}, BundleError, "--split"),
        ({"shapes": ["length=8", "length=16", "batch=1", "batch=2", "batch=3"]}, UsageError, "3 profiles"),
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
