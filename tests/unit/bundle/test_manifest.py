import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perceiver_deploy.bundle.manifest import Axis, Manifest
from tests.helpers.factories import manifest_document

LEAVING_PATHS = {
    "parent": "../fp32.onnx",
    "parent in the middle": "onnx/../../fp32.onnx",
    "absolute": "/etc/passwd",
    "backslash": "onnx\\..\\fp32.onnx",
    "empty": "",
    "NUL": "onnx/\0fp32.onnx",
}


def test_manifest_survives_a_round_trip_through_its_json():
    manifest = Manifest.model_validate(manifest_document(labels=["é", "b"], provenance={"torch": "2"}))
    text = manifest.to_json()
    assert text.endswith("}\n")
    assert Manifest.model_validate(json.loads(text)) == manifest
    assert json.loads(text)["variants"]["fp32"]["for"] == ["onnxruntime"]


@pytest.mark.parametrize("path", LEAVING_PATHS.values(), ids=LEAVING_PATHS)
def test_manifest_refuses_a_variant_file_that_leaves_the_bundle(path):
    variants = {"fp32": {"precision": "fp32", "for": ["onnxruntime"], "files": {"full": path}}}
    with pytest.raises(ValidationError, match="leaves the bundle"):
        Manifest.model_validate(manifest_document(variants=variants, files={}))


@pytest.mark.parametrize("path", LEAVING_PATHS.values(), ids=LEAVING_PATHS)
def test_manifest_refuses_a_listed_file_that_leaves_the_bundle(path):
    files = {**manifest_document()["files"], path: {"sha256": "0" * 64, "bytes": 1}}
    with pytest.raises(ValidationError, match="leaves the bundle"):
        Manifest.model_validate(manifest_document(files=files))


def test_manifest_refuses_an_engine_file_that_leaves_the_bundle():
    engines = {"e": {"variant": "fp32", "stage": "full", "file": "../e.engine"}}
    with pytest.raises(ValidationError, match="leaves the bundle"):
        Manifest.model_validate(manifest_document(engines=engines))


def test_manifest_refuses_an_engine_of_a_variant_it_does_not_have():
    files = {**manifest_document()["files"], "e.engine": {"sha256": "0" * 64, "bytes": 1}}
    engines = {"e": {"variant": "int8", "stage": "full", "file": "e.engine"}}
    with pytest.raises(ValidationError, match="'e' is of variant 'int8'"):
        Manifest.model_validate(manifest_document(engines=engines, files=files))


def test_manifest_refuses_a_variant_whose_file_has_no_digest():
    files = {"config.json": {"sha256": "0" * 64, "bytes": 1}}
    with pytest.raises(ValidationError, match=r"no digest for onnx/fp32\.onnx"):
        Manifest.model_validate(manifest_document(files=files))


def test_manifest_refuses_an_input_on_an_axis_it_does_not_describe():
    with pytest.raises(ValidationError, match="length"):
        Manifest.model_validate(manifest_document(axes={"batch": {"opt": 1}}))


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("schema_version", 2),
        ("task", "telepathy"),
        ("unknown", 1),
        ("files", {"onnx/fp32.onnx": {"sha256": "zz", "bytes": 1}}),
        ("files", {"onnx/fp32.onnx": {"sha256": "0" * 64, "bytes": -1}}),
        ("stages", {"middle": manifest_document()["stages"]["full"]}),
        ("labels", "abc"),
    ],
)
def test_manifest_names_the_entry_that_breaks_the_schema(change, value):
    with pytest.raises(ValidationError) as caught:
        Manifest.model_validate(manifest_document(**{change: value}))
    assert change in str(caught.value)


def test_bytes_of_a_graph_are_those_of_its_external_data_too():
    entry = {"sha256": "0" * 64, "bytes": 7}
    files = {"onnx/fp32.onnx": entry, "onnx/fp32.onnx.data": {**entry, "bytes": 100}, "config.json": entry}
    manifest = Manifest.model_validate(manifest_document(files=files))
    assert (manifest.stored_bytes("onnx/fp32.onnx"), manifest.stored_bytes("config.json")) == (107, 7)


sizes = st.integers(1, 50)


@given(sizes, sizes, st.none() | sizes)
def test_axis_is_accepted_exactly_when_min_opt_max_are_in_order(least, opt, most):
    ordered = least <= opt and (most is None or opt <= most)
    if ordered:
        assert Axis(min=least, opt=opt, max=most).opt == opt
    else:
        with pytest.raises(ValidationError, match="min <= opt <= max"):
            Axis(min=least, opt=opt, max=most)


@pytest.mark.parametrize("values", [{"min": 0, "opt": 1}, {"opt": 0}, {"opt": 1, "multiple_of": 0}])
def test_axis_refuses_sizes_below_one(values):
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Axis(**values)


def test_axis_refuses_an_opt_that_is_not_a_multiple_of_its_step():
    """No input could have it. `min` and `max` are bounds and may lie between two multiples."""
    assert Axis(min=3, opt=8, max=10, multiple_of=4).problem(8) is None
    with pytest.raises(ValidationError, match="multiple"):
        Axis(min=3, opt=6, max=10, multiple_of=4)


@given(st.integers(0, 60))
def test_axis_problem_says_which_rule_a_size_breaks(size):
    problem = Axis(min=4, opt=8, max=40, multiple_of=4).problem(size)
    if size < 4:
        assert problem == "at least 4"
    elif size > 40:
        assert problem == "at most 40"
    elif size % 4:
        assert problem == "a multiple of 4"
    else:
        assert problem is None
