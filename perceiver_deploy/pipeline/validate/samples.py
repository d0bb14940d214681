"""The samples that a bundle is judged on: golden, of the grid, adversarial and real; and the smallest that fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Stage, TensorSpec
from perceiver_deploy.bundle.samples import Sample, load_sample
from perceiver_deploy.errors import BundleError
from perceiver_deploy.evaluate.parity.grid import Case, adversarial_cases, shape_grid

REAL_ROWS = 8


def golden_samples(bundle: Bundle) -> Iterator[Sample]:
    """The samples that a bundle was exported with, or a `BundleError` where it has none."""
    names = bundle.samples()
    if not names:
        raise BundleError(
            f"{bundle.path} has no golden samples to replay: it was exported with --no-validate. Export it without."
        )
    for name in names:
        yield load_sample(bundle.file(name))


def golden_name(sample: Sample) -> str:
    """What a golden sample is called among others."""
    return f"golden {sample.name}"


def eager_samples(bundle: Bundle, data: str | Path | None, seconds: float) -> Iterator[Sample | Case]:
    """All of them: `REAL_ROWS` of `data`, golden ones where there are some, the grid and adversarial inputs.

    A case that there was no time for comes as itself.

    Args:
        bundle: a bundle with its weights.
        data: name of a data set, or a .npz file of the model's inputs.
        seconds: time that the grid and the adversarial inputs may take the reference.
    """
    from perceiver_deploy.evaluate.parity.reference import Reference
    from perceiver_deploy.runtimes.eager import load_source_model

    manifest = bundle.manifest
    reference = Reference(load_source_model(bundle), manifest.signature)
    if data is not None:
        from perceiver_deploy.pipeline.samples.source import read_source

        inputs = read_source(bundle, data, "test", "Data").split.rows(slice(None))
        yield reference.sample(f"real, {data}", _rows(inputs, manifest.stages["full"].inputs, slice(REAL_ROWS)))
    for sample in golden_samples(bundle) if bundle.samples() else ():
        yield dataclasses.replace(sample, name=golden_name(sample))
    cases = shape_grid(manifest.signature) + adversarial_cases(manifest.signature)
    yield from reference.samples(cases, manifest.preprocessing, seconds)


def reduce_sample(sample: Sample, stage: Stage, fails: Callable[[Sample], bool]) -> Sample:
    """The first row of a failing sample that fails by itself; the sample where none does."""
    batched = next((spec.name for spec in stage.inputs if spec.shape[0] == "batch"), None)
    for row in range(0 if batched is None else len(sample.inputs[batched])):
        one = slice(row, row + 1)
        inputs = _rows(sample.inputs, stage.inputs, one)
        outputs = (_rows(arrays, stage.outputs, one) for arrays in (sample.float64, sample.float32))
        reduced = Sample(sample.name, inputs, *outputs)
        if fails(reduced):
            return reduced
    return sample


def _rows(arrays: Arrays, specs: tuple[TensorSpec, ...], rows: slice) -> Arrays:
    batched = {spec.name for spec in specs if spec.shape[0] == "batch"}
    return {name: array[rows] if name in batched else array for name, array in arrays.items()}
