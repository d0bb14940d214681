"""The C++ library against Python's onnxruntime on the same library file: the same bits, with one thread each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perceiver_deploy import convert_bundle, export_model, load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.samples import load_sample
from perceiver_deploy.evaluate.parity.grid import make_inputs, shape_grid
from perceiver_deploy.evaluate.parity.verdicts import Candidate, judge
from perceiver_deploy.model.checkpoints.load import shipped_names
from perceiver_deploy.pipeline.export.stages import SplitMode
from tests.cpp.c_abi import INPUT, OUTPUT, Library, Session
from tests.helpers.task_factories import named_model

SHAPES = 3


def assert_same_bits(found: Mapping[str, NDArray[np.generic]], expected: Mapping[str, NDArray[np.generic]]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes(), name


def inputs_at_shapes(bundle: Path) -> list[dict[str, NDArray[np.generic]]]:
    """Inputs of the whole model: every axis at its optimum, at an odd size, and a third case."""
    manifest = Bundle.open(bundle).manifest
    cases = shape_grid(manifest.signature)
    assert len({str(case.sizes) for case in cases}) >= SHAPES
    return [make_inputs(manifest.signature, case, manifest.preprocessing) for case in [*cases[:2], cases[-1]]]


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_bundles_give_pythons_bits_in_fp32_and_int8(
    name: str, copied_bundle: Callable[[str], Path], library: Library
) -> None:
    bundle = copied_bundle(name)
    convert_bundle(bundle, calibration=name, samples=8)
    for variant in ("fp32", "int8"):
        with (
            load(bundle, "onnxruntime", variant, threads=1) as python,
            Session(library, bundle, variant=variant, threads=1) as cpp,
        ):
            for inputs in inputs_at_shapes(bundle):
                expected = python.run(inputs)
                assert_same_bits(cpp.run(inputs), expected)
                memory = {output: np.empty_like(array) for output, array in expected.items()}
                cpp.run_into(inputs, memory)
                assert_same_bits(memory, expected)


class AsPython:
    """A session of the C++ library that `judge` can hold to the bounds of Python's."""

    runtime = "onnxruntime"

    def __init__(self, session: Session) -> None:
        self.run = session.run


@pytest.mark.parametrize("name", ["digits", "bytes", "flow"])
def test_golden_samples_are_kept_within_the_bounds_of_the_manifest(
    name: str, shared_bundle: Callable[[str], Path], library: Library
) -> None:
    opened = Bundle.open(shared_bundle(name))
    assert opened.samples()
    with Session(library, opened.path, threads=1) as session:
        candidate = Candidate(AsPython(session), "fp32", "fp32")  # type: ignore[arg-type]
        verdicts = [
            verdict for file in opened.samples() for verdict in judge([candidate], load_sample(opened.file(file)))
        ]
    assert all(verdict.passed for verdict in verdicts), [str(verdict) for verdict in verdicts if not verdict.passed]


SPLIT_KINDS = ("masked_lm", "optical_flow", "multimodal_autoencoding", "entities")


@pytest.mark.parametrize("split", ["beside", "only"])
@pytest.mark.parametrize("kind", SPLIT_KINDS)
def test_stages_give_pythons_bits(kind: str, split: SplitMode, tmp_path: Path, library: Library) -> None:
    bundle = tmp_path / "bundle"
    export_model(named_model(kind), bundle, split=split, validate=False)
    inputs = inputs_at_shapes(bundle)[1]
    with load(bundle, "onnxruntime", threads=1) as python, Session(library, bundle, threads=1) as cpp:
        expected = python.run(inputs)
        assert_same_bits(cpp.run(inputs), expected)
        memory = {name: np.empty_like(array) for name, array in expected.items()}
        cpp.run_into(inputs, memory)
        assert_same_bits(memory, expected)
        for index, (name, _, shape) in enumerate(cpp.specs(OUTPUT)):
            assert cpp.output_shape(inputs, index, len(shape)) == list(expected[name].shape)
        encoded = {spec.name: inputs[spec.name] for spec in python.stage("encoder").inputs}
        latents = python.encode(encoded)
        assert_same_bits(cpp.run(encoded, "encoder"), latents)
        decoded = {spec.name: inputs[spec.name] for spec in python.stage("decoder").inputs if spec.name in inputs}
        if kind == "masked_lm":
            decoded["positions"] = np.array([0, 2])
            decoded["attention_mask"] = inputs["attention_mask"][:, [0, 2]].copy()
        if kind == "optical_flow":
            decoded["points"] = np.array([3, 1, 2])
        if kind == "multimodal_autoencoding":
            _, frames, _, height, width = inputs["image"].shape
            decoded["clip_size"] = np.array([frames, height, width, inputs["audio_points"].max() + 1])
        assert_same_bits(cpp.run({**latents, **decoded}, "decoder"), python.decode({**latents, **decoded}))
        assert [name for name, _, _ in cpp.specs(INPUT, "encoder")] == list(encoded)


@pytest.mark.parametrize("name", ["digits", "sentiment", "languages", "flow"])
def test_raw_inputs_give_pythons_bits(name: str, raw_bundle: Callable[[str], Path], library: Library) -> None:
    bundle = raw_bundle(name)
    with load(bundle, "onnxruntime", threads=1) as python, Session(library, bundle, threads=1) as cpp:
        for inputs in inputs_at_shapes(bundle):
            assert {array.dtype.name for array in inputs.values()} & {"uint8", "int16"}
            assert_same_bits(cpp.run(inputs), python.run(inputs))


def test_two_threads_are_python_s_two_threads(shared_bundle: Callable[[str], Path], library: Library) -> None:
    bundle = shared_bundle("fourier")
    inputs = inputs_at_shapes(bundle)[1]
    with load(bundle, "onnxruntime", threads=2) as python, Session(library, bundle, threads=2) as cpp:
        assert_same_bits(cpp.run(inputs), python.run(inputs))
