"""Calibration data: samples that a bundle's model takes, checked, and as each of its stages takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Manifest, StageName
from perceiver_deploy.data.split import Split, spread_rows
from perceiver_deploy.pipeline.samples.checks import ADVISED_SAMPLES, arrays_digest, require_samples
from perceiver_deploy.pipeline.samples.source import read_source
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.cpu.onnxruntime import OnnxRuntimeSession
from perceiver_deploy.runtimes.stages.queries import all_queries

_MASK = "attention_mask"


@dataclass(frozen=True)
class CalibrationData:
    """Samples and their digest, with the fp32 graphs of the stages that take them."""

    samples: Split
    sha256: str
    manifest: Manifest
    graphs: Mapping[StageName, Path]

    def batches(self, stage: StageName, rows: int) -> Iterator[Arrays]:
        """What a stage takes, `rows` samples at a time: the data, or their latents with everything there is to ask."""
        return stage_batches(stage, lambda: self._full(rows), self.manifest, self.graphs)

    def _full(self, rows: int) -> Iterator[Arrays]:
        for start in range(0, len(self.samples), rows):
            yield self.samples.rows(slice(start, start + rows))


def stage_batches(
    stage: StageName, full: Callable[[], Iterator[Arrays]], manifest: Manifest, graphs: Mapping[StageName, Path]
) -> Iterator[Arrays]:
    """What a stage takes of batches for the whole model: them, or their latents with everything there is to ask."""
    if stage == "full":
        yield from full()
        return
    encoder = manifest.stages["encoder"]
    encoded = ({spec.name: batch[spec.name] for spec in encoder.inputs} for batch in full())
    if stage == "encoder":
        yield from encoded
        return
    with OnnxRuntimeSession(graphs["encoder"], encoder, manifest.axes) as session:
        for batch, inputs in zip(full(), encoded, strict=True):
            yield {**session.run(inputs), **all_queries(manifest.stages["decoder"], manifest.stages["full"], batch)}


def calibration_data(
    bundle: Bundle, calibration: str | Path, samples: int, graphs: Mapping[StageName, Path]
) -> CalibrationData:
    """Training samples of a data set, or those of a .npz file, checked against the model's inputs.

    Of more than `samples` those are taken that lie evenly over all.

    Raises:
        InputError: neither, data of another task, what the model does not take, values that are not finite, or fewer
            than `LEAST_SAMPLES`.
        UsageError, MissingError: as `load_dataset`.
    """
    source = read_source(bundle, calibration, "train", "Data").split
    chosen = spread_rows(len(source), samples)
    rows = {name: array[chosen] for name, array in source.inputs.items()}
    split = Split(rows, targets=chosen, shared=source.shared)  # targets only number them
    require_samples(split, str(calibration), "calibration", "one sample cannot tell the range of a tensor")
    _warn(split)
    return CalibrationData(split, arrays_digest(split.rows(slice(None))), bundle.manifest, graphs)


def _warn(data: Split) -> None:
    if len(data) < ADVISED_SAMPLES:
        log.warning("%d calibration samples are few; %d or more see more of the ranges", len(data), ADVISED_SAMPLES)
    if _MASK in data.inputs and data.inputs[_MASK].all():
        log.warning(
            "No calibration sample uses the mask (%s is 1 everywhere): what padded inputs do to ranges is not seen",
            _MASK,
        )
