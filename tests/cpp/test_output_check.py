"""The C++ library holds what a graph gives to the manifest at every run, in Python's words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiver_deploy import export_model
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.errors import ParityError
from perceiver_deploy.runtimes.checks.outputs import OutputCheck
from tests.cpp.c_abi import Library, Session
from tests.cpp.test_parity import inputs_at_shapes
from tests.helpers.task_factories import named_model

CHANGES: dict[str, dict[str, Any]] = {
    "rank": {"shape": ["batch", 1, 5]},
    "number": {"shape": ["batch", 7]},
    "axis": {"shape": ["height", 5]},
    "expression": {"shape": ["2*batch", 5]},
    "rank where a size is not known": {"shape": ["batch", "queries", 5]},
    "number where a size is not known": {"shape": ["queries", 4]},
    "dtype": {"dtype": "float16"},
    "integers": {"dtype": "int64"},
}


def with_output(bundle: Path, stage: str, **changes: object) -> Path:
    """The bundle whose manifest says something else of its output, and which has no golden samples to see it by."""
    with changed_bundle(bundle) as (staging, opened):
        for relative in opened.samples():
            staging.remove(relative)
        staging.finish(opened.manifest)
    document = json.loads((bundle / "bundle.json").read_text())
    document["stages"][stage]["outputs"][0].update(changes)
    (bundle / "bundle.json").write_text(json.dumps(document))
    return bundle


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_an_output_of_another_shape_or_dtype_is_refused_in_pythons_words(
    changes: dict[str, Any], copied_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = copied_bundle("fourier")
    inputs = inputs_at_shapes(bundle)[1]
    with Session(library, bundle) as session:
        right = session.run(inputs)
    with_output(bundle, "full", **changes)
    manifest = Bundle.open(bundle).manifest
    batch, _, height, width = inputs["pixel_values"].shape
    with pytest.raises(ParityError) as expected:
        OutputCheck(manifest.stages["full"].outputs)(
            right, {"batch": batch, "height": height, "width": width}, "onnxruntime"
        )
    with Session(library, bundle) as session, pytest.raises(ParityError) as caught:
        session.run(inputs)
    assert str(caught.value) == str(expected.value)


def test_a_size_that_the_inputs_do_not_say_is_not_checked(
    copied_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = copied_bundle("fourier")
    inputs = inputs_at_shapes(bundle)[1]
    with_output(bundle, "full", shape=["queries", 5])
    with Session(library, bundle) as session:
        assert session.run(inputs)["logits"].shape[1] == 5


def test_memory_of_the_shape_that_a_wrong_manifest_says_is_refused_in_the_same_words(
    copied_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = copied_bundle("fourier")
    inputs = inputs_at_shapes(bundle)[1]
    batch = len(inputs["pixel_values"])
    for shape, numbers in ((["batch", 1, 5], (batch, 1, 5)), (["batch", 7], (batch, 7))):
        with_output(bundle, "full", shape=shape)
        with Session(library, bundle) as session:
            with pytest.raises(ParityError) as caught:
                session.run(inputs)
            memory = {"logits": np.full(numbers, 7, np.float32)}
            with pytest.raises(ParityError) as into:
                session.run_into(inputs, memory)
        assert str(into.value) == str(caught.value)
        assert (memory["logits"] == 7).all()


def test_answers_of_a_decoder_that_do_not_fill_the_output_are_refused(tmp_path: Path, library: Library) -> None:
    bundle = tmp_path / "bundle"
    export_model(named_model("masked_lm"), bundle, split="only", validate=False)
    inputs = inputs_at_shapes(bundle)[1]
    with Session(library, bundle) as session:
        right = session.run(inputs)["logits"]
    batch, length, vocabulary = right.shape
    for shape in (["batch", "length", vocabulary - 1], ["batch", "length", vocabulary + 1]):
        with_output(bundle, "full", shape=shape)
        with Session(library, bundle) as session:
            with pytest.raises(ParityError) as caught:
                session.run(inputs)
            memory = {"logits": np.zeros((batch, length, int(shape[-1])), np.float32)}
            with pytest.raises(ParityError, match="gives output 'logits' with shape"):
                session.run_into(inputs, memory)
        assert str(caught.value).startswith(
            f"onnxruntime gives output 'logits' with shape {list(right.shape)}; the manifest says [batch, length, "
            f"{shape[-1]}] = {[batch, length, shape[-1]]}. "
        )


def test_a_wrong_rank_is_found_when_a_bundle_with_samples_is_opened(
    copied_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = copied_bundle("fourier")
    document = json.loads((bundle / "bundle.json").read_text())
    document["stages"]["full"]["outputs"][0]["shape"] = ["batch", 1, 5]
    (bundle / "bundle.json").write_text(json.dumps(document))
    library.cache, kept = bundle / "cache", library.cache
    try:
        with pytest.raises(ParityError, match=r"onnxruntime gives output 'logits' with shape \[\d+, 5\]; the manifest"):
            Session(library, bundle)
    finally:
        library.cache = kept
