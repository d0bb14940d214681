"""Held-out data: examples that a bundle's model was not calibrated on, with the metrics that they are judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Manifest, Task
from perceiver_deploy.bundle.preprocessing import FlowPreprocessing
from perceiver_deploy.data.datasets import DATA_SETS
from perceiver_deploy.data.media.flow import end_point_error
from perceiver_deploy.data.metrics import TOP1, Metric
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import InputError, UsageError
from perceiver_deploy.pipeline.samples.calibration import CalibrationData
from perceiver_deploy.pipeline.samples.checks import arrays_digest, require_samples
from perceiver_deploy.pipeline.samples.golden import GoldenData
from perceiver_deploy.pipeline.samples.source import LABELS, read_source

MOST_SHARED = 0.1
"""Share of held-out examples, and of calibration samples, that may be the same."""
_CLASSIFICATION: tuple[Task, ...] = (
    "text_classification",
    "image_classification",
    "audio_classification",
    "video_classification",
    "audiovisual_classification",
    "point_cloud_classification",
    "entities",
)


@dataclass(frozen=True)
class HeldOut:
    """Examples, and the task's metrics; without labels there are none, and agreement with eager is judged."""

    name: str
    split: Split
    metrics: tuple[Metric, ...] | None
    sha256: str

    def require_unlike(self, calibrated: CalibrationData | GoldenData) -> None:
        """Raise a `UsageError` where these are samples that were calibrated on, in any order; golden ones are random.

        More than `MOST_SHARED` of either have to be the same: data sets hold some examples twice.
        """
        if isinstance(calibrated, GoldenData):
            return
        seen, examples = set(_row_digests(calibrated.samples)), _row_digests(self.split)
        same = sum(digest in seen for digest in examples)
        if same > MOST_SHARED * min(len(seen), len(examples)):
            raise UsageError(
                f"{same} of the {len(examples)} examples of {self.name} were calibrated on, so it says little of other "
                "data. Give other data to --held-out."
            )


def _row_digests(split: Split) -> list[str]:
    return [arrays_digest({name: array[row] for name, array in split.inputs.items()}) for row in range(len(split))]


def held_out_data(bundle: Bundle, held_out: str | Path | None, calibration: str | Path | None) -> HeldOut:
    """The test split of a data set, or a .npz file with one array an input and, if there are any, `labels`.

    Where nothing is given it is the test split of the data set that was calibrated on.

    Raises:
        UsageError: nothing is given, and calibration was on no data set.
        InputError: neither a data set nor such a file, or one that does not fit the model, has values that are not
            finite or a single row.
        MissingError: the data set is not here.
    """
    if held_out is None:
        if calibration is None or str(calibration) not in DATA_SETS:
            raise UsageError(
                "The contract of --max-drop is judged on data that were not calibrated on. Name a data set, whose test "
                "split is taken, or a .npz file with --held-out."
            )
        held_out = calibration
    source = read_source(bundle, held_out, "test", "Held-out data", judged=True)
    rows, labels = source.split.rows(slice(None)), source.split.targets
    digest = arrays_digest(rows | ({LABELS: labels} if source.labelled else {}))
    if source.metrics is not None:
        return HeldOut(source.name, source.split, source.metrics, digest)
    numbered = replace(source.split, targets=np.arange(len(source.split)))
    require_samples(numbered, source.name, "held-out", "the outputs for one tell little of those for others")
    if not source.labelled:
        return HeldOut(source.name, source.split, None, digest)
    metrics = _metrics(bundle.manifest, source.name)
    _check_labels(labels, bundle.manifest, source.name)
    return HeldOut(source.name, source.split, metrics, digest)


def _check_labels(labels: NDArray[Any], manifest: Manifest, path: str) -> None:
    """Labels of a classification are classes."""
    if manifest.task not in _CLASSIFICATION:
        return
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path} has labels {labels.dtype} {list(labels.shape)}; expected whole numbers [{len(labels)}], the index "
            "of each example's class."
        )
    classes = manifest.stages["full"].outputs[0].shape[-1]
    if isinstance(classes, int) and (wrong := np.flatnonzero((labels < 0) | (labels >= classes))).size:
        raise InputError(
            f"{path} has the label {labels[wrong[0]]} at example {wrong[0]}; expected 0 to {classes - 1}, the model's "
            "classes. Leave out examples of other classes."
        )


def _metrics(manifest: Manifest, path: str) -> tuple[Metric, ...]:
    """What labels of a file mean: classes, or the flow in pixels."""
    if manifest.task in _CLASSIFICATION:
        return (TOP1,)
    if manifest.task == "optical_flow" and isinstance(manifest.preprocessing, FlowPreprocessing):
        scale = {"output_scale": 1.0} if manifest.raw_inputs else {}
        return (end_point_error(manifest.preprocessing.model_copy(update=scale)),)
    raise InputError(
        f"{path} has labels, which have one meaning for {', '.join(_CLASSIFICATION)} and optical_flow alone; the "
        f"bundle's task is {manifest.task}. Leave the array {LABELS!r} out: agreement with eager is judged then."
    )
