"""Mistakes: the C++ library says what Python says, with the same family and code, and runs nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from perceiver_deploy import load
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.errors import BundleError, InputError, MissingError, PerceiverDeployError, UsageError
from perceiver_deploy.runtimes.catalogue import GPU_RUNTIMES
from perceiver_deploy.runtimes.checks.inputs import check_inputs
from tests.cpp.c_abi import Library, Session
from tests.helpers.factories import manifest_document, text_inputs

AUDIO = {"kind": "audio", "sample_rate": 0, "samples": 8, "samples_per_patch": 4}


def said(call: Callable[[], object]) -> tuple[str, str]:
    """Family and text of the error that a call raises."""
    with pytest.raises(PerceiverDeployError) as caught:
        call()
    return type(caught.value).__name__, str(caught.value)


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The document with another value at `a.b.0.c`; None removes it."""
    document = json.loads(json.dumps(document))
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("/"))
    place: Any = document
    for part in parents:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


INPUT = "stages/full/inputs/0"
ENGINE = {"variant": "fp32", "stage": "full", "file": "onnx/fp32.onnx"}
MANIFESTS = {
    "no task": ("task", None),
    "other task": ("task", "translation"),
    "task of another type": ("task", 3),
    "unknown field": ("extra", 1),
    "unknown field inside": (f"{INPUT}/extra", 1),
    "schema version of another type": ("schema_version", [1]),
    "schema version 0": ("schema_version", 0),
    "newer schema": ("schema_version", 2),
    "axes is a list": ("axes", []),
    "axis is a number": ("axes/batch", 3),
    "axis without opt": ("axes/batch", {}),
    "axis minimum 0": ("axes/batch", {"min": 0, "opt": 1}),
    "axis out of order": ("axes/length", {"min": 9, "opt": 8}),
    "axis beyond its maximum": ("axes/length", {"opt": 8, "max": 7}),
    "axis no multiple": ("axes/length", {"opt": 8, "multiple_of": 3}),
    "no inputs": ("stages/full/inputs", None),
    "inputs is a string": ("stages/full/inputs", "input_ids"),
    "unknown dtype": (f"{INPUT}/dtype", "int7"),
    "name is a number": (f"{INPUT}/name", 1),
    "size is a list": (f"{INPUT}/shape", ["batch", []]),
    "unknown axis": (f"{INPUT}/shape", ["batch", "lengths"]),
    "unknown axis in an expression": (f"{INPUT}/shape", ["batch", "2*lengths/3"]),
    "unknown stage": ("stages/middle", {"inputs": [], "outputs": []}),
    "no full stage": ("stages", {}),
    "unknown precision": ("variants/fp32/precision", "fp8"),
    "unknown runtime": ("variants/fp32/for", ["onnxruntime", "abacus"]),
    "variant without files": ("variants/fp32/files", {}),
    "variant with an encoder alone": ("variants/fp32/files", {"encoder": "onnx/fp32.onnx"}),
    "variant with an undescribed stage": (
        "variants/fp32/files",
        {"encoder": "onnx/fp32.onnx", "decoder": "onnx/fp32.onnx"},
    ),
    "path that leaves": ("variants/fp32/files/full", "../fp32.onnx"),
    "absolute path": ("variants/fp32/files/full", "/fp32.onnx"),
    "empty path": ("variants/fp32/files/full", ""),
    "path with a quote and a backslash": ("variants/fp32/files/full", "it's\\x"),
    "variant without a digest": ("variants/fp32/files/full", "onnx/other.onnx"),
    "digest of capitals": ("files", {"onnx/fp32.onnx": {"sha256": "A" * 64, "bytes": 1}}),
    "negative size": ("files", {"onnx/fp32.onnx": {"sha256": "0" * 64, "bytes": -1}}),
    "listed path that leaves": (
        "files",
        {"onnx/fp32.onnx": {"sha256": "0" * 64, "bytes": 1}, "../x": {"sha256": "0" * 64, "bytes": 1}},
    ),
    "engine of an unknown variant": ("engines", {"e": {**ENGINE, "variant": "int8"}}),
    "engine that leaves": ("engines", {"e": {**ENGINE, "file": "/e"}}),
    "preprocessing of no kind": ("preprocessing", {}),
    "preprocessing of another kind": ("preprocessing", {"kind": "smell"}),
    "preprocessing without a field": ("preprocessing", {"kind": "image", "size": [8, 8], "mean": [0, 0, 0]}),
    "preprocessing of one number": (
        "preprocessing",
        {"kind": "image", "size": [8], "mean": [0, 0, 0], "std": [1, 1, 1]},
    ),
    "preprocessing of four numbers": (
        "preprocessing",
        {"kind": "image", "size": [8, 8], "mean": [0, 0, 0, 0], "std": [1, 1, 1]},
    ),
    "preprocessing not positive": ("preprocessing", AUDIO),
    "preprocessing of no names": ("preprocessing", {"kind": "entities", "names": [], "mean": [], "std": []}),
    "labels of another type": ("labels", ["a", 1]),
}


@pytest.mark.parametrize(("path", "value"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_bad_manifest_is_refused_in_pythons_words(path: str, value: object, tmp_path: Path, library: Library) -> None:
    (tmp_path / "bundle.json").write_text(json.dumps(changed(manifest_document(), path, value)))
    assert said(lambda: Session(library, tmp_path)) == said(lambda: Bundle.open(tmp_path))


@pytest.mark.parametrize("document", ["[]", "3", "null", '"text"'])
def test_a_manifest_that_is_no_object_is_refused(document: str, tmp_path: Path, library: Library) -> None:
    (tmp_path / "bundle.json").write_text(document)
    family, text = said(lambda: Session(library, tmp_path))
    assert family == said(lambda: Bundle.open(tmp_path))[0]
    assert "is not a valid manifest: manifest: Input should be a valid dictionary" in text


def test_a_place_without_a_bundle_is_refused_in_pythons_words(tmp_path: Path, library: Library) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder/bundle.json").mkdir(parents=True)
    for place in (tmp_path / "nothing", tmp_path / "file", tmp_path, tmp_path / "folder"):
        assert said(lambda place=place: Session(library, place)) == said(lambda place=place: Bundle.open(place))
    (tmp_path / "bundle.json").write_text("{")
    family, text = said(lambda: Session(library, tmp_path))
    assert family == "BundleError"
    assert text.startswith(f"{tmp_path}/bundle.json is not JSON: ")


def edit_file(bundle: Path) -> None:
    with (bundle / "onnx/fp32.onnx").open("r+b") as file:
        file.write(b"\0")


def shorten_file(bundle: Path) -> None:
    os.truncate(bundle / "onnx/fp32.onnx", 100)


def remove_file(bundle: Path) -> None:
    (bundle / "onnx/fp32.onnx").unlink()


def link_outside(bundle: Path) -> None:
    outside = bundle.parent / "outside.onnx"
    shutil.move(bundle / "onnx/fp32.onnx", outside)
    (bundle / "onnx/fp32.onnx").symlink_to(outside)


@pytest.mark.parametrize("damage", [edit_file, shorten_file, remove_file, link_outside])
def test_a_damaged_file_is_refused_in_pythons_words(
    damage: Callable[[Path], None], copied_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = copied_bundle("fourier")
    damage(bundle)
    assert said(lambda: Session(library, bundle)) == said(lambda: load(bundle, "onnxruntime"))


def test_a_link_inside_the_bundle_and_a_bundle_behind_a_link_are_opened(
    copied_bundle: Callable[[str], Path], tmp_path: Path, library: Library
) -> None:
    bundle = copied_bundle("fourier")
    shutil.move(bundle / "onnx/fp32.onnx", bundle / "model")
    (bundle / "onnx/fp32.onnx").symlink_to("../model")
    (tmp_path / "link").symlink_to(bundle)
    with Session(library, tmp_path / "link") as session:
        assert session.text("variant") == "fp32"


def test_external_data_is_checked_when_a_model_is_opened(
    copied_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = copied_bundle("fourier")
    with changed_bundle(bundle) as (staging, opened):
        model = onnx.load(opened.file("onnx/fp32.onnx"))
        path = staging.path("onnx/fp32.onnx")
        onnx.save(model, path, save_as_external_data=True, location="fp32.onnx.data", size_threshold=1024)
        staging.finish(opened.manifest)
    with Session(library, bundle) as session:
        assert session.text("runtime") == "onnxruntime"
    data = bundle / "onnx/fp32.onnx.data"
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    assert said(lambda: Session(library, bundle)) == said(lambda: load(bundle, "onnxruntime"))
    data.unlink()
    assert said(lambda: Session(library, bundle)) == said(lambda: load(bundle, "onnxruntime"))


def test_a_graph_that_onnxruntime_does_not_read_is_refused_in_pythons_words(
    copied_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = copied_bundle("fourier")
    with changed_bundle(bundle) as (staging, opened):
        model = onnx.load(opened.file("onnx/fp32.onnx"))
        model.opset_import[0].version = 99
        onnx.save(model, staging.path("onnx/fp32.onnx"))
        staging.finish(opened.manifest)
    family, text = said(lambda: Session(library, bundle))
    assert (family, text) == said(lambda: load(bundle, "onnxruntime"))
    assert "opset 99" in text


OPTIONS = {
    "unknown variant": {"variant": "int4"},
    "unknown precision": {"precision": "int4"},
    "variant and precision": {"variant": "fp32", "precision": "fp32"},
    "no threads": {"threads": 0},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_that_cannot_be_used_are_refused(
    options: dict[str, Any], shared_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = shared_bundle("fourier")
    found = said(lambda: Session(library, bundle, **options))
    assert found == said(lambda: load(bundle, **{"runtime": "onnxruntime", **options}))


def test_unknown_options_runtimes_and_numbers_are_refused(
    shared_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = shared_bundle("fourier")
    with pytest.raises(UsageError, match="no option 'thread'; expected runtime, variant"):
        Session(library, bundle, thread=2)
    with pytest.raises(UsageError, match="threads is 'two'; expected at least 1"):
        Session(library, bundle, threads="two")
    with pytest.raises(UsageError, match="no runtime 'openvino'; expected auto, onnxruntime, onnxruntime-cuda"):
        Session(library, bundle, runtime="openvino")


@pytest.mark.parametrize("runtime", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_is_not_here_is_missing_and_the_cpu_does_not_step_in(
    runtime: str, shared_bundle: Callable[[str], Path], library: Library
) -> None:
    with pytest.raises(MissingError, match=f"The runtime {runtime} cannot run here: .*It needs an NVIDIA GPU"):
        Session(library, shared_bundle("fourier"), runtime=runtime)


def test_a_plugin_that_is_not_given_or_cannot_be_loaded_is_missing(
    shared_bundle: Callable[[str], Path], tmp_path: Path, library: Library
) -> None:
    bundle, runtime = shared_bundle("fourier"), "onnxruntime-tensorrt-rtx"
    with pytest.raises(MissingError, match=f"The runtime {runtime} needs NVIDIA's plugin. Give the path of"):
        Session(library, bundle, runtime=runtime)
    with pytest.raises(MissingError, match=f"The runtime {runtime} cannot run here: .*absent.so"):
        Session(library, bundle, runtime=runtime, plugin=tmp_path / "absent.so")


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_is_missing_what_this_build_or_machine_does_not_have(
    runtime: str, shared_bundle: Callable[[str], Path], library: Library
) -> None:
    with pytest.raises((MissingError, BundleError), match=f"Runtime '{runtime}' cannot run|has no {runtime} engine"):
        Session(library, shared_bundle("fourier"), runtime=runtime)


def test_a_variant_for_other_runtimes_is_missing_its_own_and_refuses_others_in_pythons_words(
    copied_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = copied_bundle("fourier")
    document = json.loads((bundle / "bundle.json").read_text())
    document["variants"]["fp32"]["for"] = ["openvino"]
    (bundle / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(MissingError, match="Variant 'fp32' is for openvino, and this library runs onnxruntime"):
        Session(library, bundle)
    for runtime in ("onnxruntime", *GPU_RUNTIMES):
        found = said(lambda runtime=runtime: Session(library, bundle, runtime=runtime))
        assert found == said(lambda runtime=runtime: load(bundle, runtime))


def test_a_stage_that_is_not_there_is_refused_in_pythons_words(
    shared_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = shared_bundle("masked_lm")
    with Session(library, bundle) as cpp, load(bundle, "onnxruntime") as python:
        assert said(lambda: cpp.run({}, "encoder")) == said(lambda: python.encode({}))


def without_python(text: str) -> str:
    """A message of Python's without its remedy for NumPy's arrays, which the C++ library words for any language."""
    return re.sub(r"Convert it with array\.astype\('(\w+)'\)", r"Convert it to \1", text)


INPUTS: dict[str, dict[str, Any]] = {
    "unknown name": {"ids": np.zeros(1, np.int64)},
    "names in order": {"zz": np.zeros(1, np.int64), "aa": np.zeros(1, np.int64)},
    "missing": {"attention_mask": None},
    "int32": {"input_ids": np.zeros((2, 4), np.int32)},
    "float64": {"input_ids": np.zeros((2, 4))},
    "one dimension": {"input_ids": np.zeros(4, np.int64)},
    "three dimensions": {"input_ids": np.zeros((1, 2, 4), np.int64)},
    "too long": {"input_ids": np.zeros((2, 4000), np.int64)},
    "empty": {"input_ids": np.zeros((0, 4), np.int64)},
    "lengths that differ": {"attention_mask": np.ones((2, 5), np.int64)},
    "batches that differ": {"attention_mask": np.ones((3, 4), np.int64)},
    "value too large": {"input_ids": np.full((2, 4), 1000)},
    "value too small": {"input_ids": np.full((2, 4), -1)},
    "mask of other values": {"attention_mask": np.full((2, 4), 2)},
}


@pytest.mark.parametrize("changes", INPUTS.values(), ids=INPUTS)
def test_inputs_that_do_not_fit_are_refused_in_pythons_words(
    changes: dict[str, Any], shared_bundle: Callable[[str], Path], library: Library
) -> None:
    inputs = {name: array for name, array in {**text_inputs(2, 4), **changes}.items() if array is not None}
    manifest = Bundle.open(shared_bundle("masked_lm")).manifest
    with pytest.raises(InputError) as expected:
        check_inputs(inputs, manifest.stages["full"].inputs, manifest.axes)
    with Session(library, shared_bundle("masked_lm")) as session:
        assert said(lambda: session.run(inputs)) == ("InputError", without_python(str(expected.value)))
        assert session.run(text_inputs(2, 4))["logits"].shape[:2] == (2, 4)  # still of use


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        ("multimodal_autoencoding", "image_points", np.array([10**6])),
        ("multimodal_autoencoding", "audio_points", np.array([-1])),
        ("audio_classification", "attention_mask", np.ones((2, 1), np.int64)),
    ],
)
def test_what_follows_from_other_inputs_is_held_to_it_in_pythons_words(
    kind: str, name: str, values: Any, shared_bundle: Callable[[str], Path], library: Library
) -> None:
    from tests.cpp.test_parity import inputs_at_shapes

    bundle = shared_bundle(kind)
    inputs = {**inputs_at_shapes(bundle)[1], name: values}
    with Session(library, bundle) as cpp, load(bundle, "onnxruntime") as python:
        assert said(lambda: cpp.run(inputs)) == said(lambda: python.run(inputs))


def test_missing_and_old_onnxruntime_are_named_with_what_to_do(
    shared_bundle: Callable[[str], Path], old_onnxruntime: Path, tmp_path: Path, library: Library
) -> None:
    bundle = shared_bundle("fourier")
    with pytest.raises(MissingError, match=f"onnxruntime cannot be loaded: {tmp_path}/absent.so: .*PERCEIVER_DEPLOY"):
        Session(library, bundle, library=tmp_path / "absent.so")
    with pytest.raises(MissingError, match=r"libm\.so\.6 is not onnxruntime"):
        Session(library, bundle, library="libm.so.6")
    with pytest.raises(MissingError, match=r"is onnxruntime 1\.2\.3; expected 1\.21 or later"):
        Session(library, bundle, library=old_onnxruntime)


@pytest.fixture
def old_onnxruntime(tmp_path: Path) -> Path:
    """A library that says of every API what an old onnxruntime says of a new one."""
    import subprocess

    source = tmp_path / "old.c"
    source.write_text(
        "static const void *get_api(unsigned version) { return (void *)0 + 0 * version; }\n"
        'static const char *get_version(void) { return "1.2.3"; }\n'
        "static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base = {\n"
        "    get_api, get_version};\n"
        "const void *OrtGetApiBase(void) { return &base; }\n"
    )
    path = tmp_path / "libold.so"
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", path], check=True)
    return path


def test_the_bundle_that_was_refused_is_named(tmp_path: Path, library: Library) -> None:
    with pytest.raises(BundleError, match=f"^{tmp_path} is not a bundle"):
        Session(library, f"{tmp_path}//")
