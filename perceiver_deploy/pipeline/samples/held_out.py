"""Held-out data: examples that a bundle's model was not calibrated on, with the metrics that they are judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Manifest, Task
from perceiver_deploy.bundle.preprocessing import FlowPreprocessing
from perceiver_deploy.data.datasets import DATA_SETS, DataSet, load_dataset_for
from perceiver_deploy.data.media.files import ARRAYS_SUFFIX, read_arrays
from perceiver_deploy.data.media.flow import end_point_error
from perceiver_deploy.data.metrics import TOP1, Metric
from perceiver_deploy.data.sets.raw_sets import raw_data_set
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import InputError, UsageError
from perceiver_deploy.pipeline.samples.calibration import CalibrationData
from perceiver_deploy.pipeline.samples.checks import arrays_digest, require_samples
from perceiver_deploy.pipeline.samples.golden import GoldenData
from perceiver_deploy.runtimes.checks.inputs import check_inputs

LABELS = "labels"
"""What the array of labels of a .npz file is called."""
MOST_SHARED = 0.1
"""Of held-out examples and of calibration samples: the share that may be the same."""
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


def labelled_data(name: str, bundle: Bundle) -> DataSet:
    """A data set in the form that a bundle takes.

    Raises:
        InputError: it is for another task, or has other labels than the model: its metric would mean nothing.
        UsageError, MissingError: as `load_dataset`.
    """
    data = load_dataset_for(bundle.manifest.task, name, str(bundle.path))
    if bundle.manifest.labels != data.labels:
        theirs, ours = (", ".join(labels or ("none",))[:60] for labels in (data.labels, bundle.manifest.labels))
        raise InputError(
            f"Data set {data.name!r} has other labels than {bundle.path}: {theirs} against {ours}. "
            "Give the data set that the model was trained for."
        )
    return raw_data_set(data) if bundle.manifest.raw_inputs else data


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
    if str(held_out) in DATA_SETS:
        data = labelled_data(str(held_out), bundle)
        digest = arrays_digest(data.test.rows(slice(None)) | {LABELS: data.test.targets})
        return HeldOut(data.name, data.test, data.metrics, digest)
    if Path(held_out).suffix == ARRAYS_SUFFIX:
        return _from_file(bundle.manifest, Path(held_out))
    raise InputError(f"Held-out data {held_out} is neither a data set ({', '.join(DATA_SETS)}) nor a .npz file.")


def _from_file(manifest: Manifest, path: Path) -> HeldOut:
    arrays = read_arrays(path)
    digest = arrays_digest(arrays)
    stage = manifest.stages["full"]
    labels = arrays.pop(LABELS, None) if LABELS not in {spec.name for spec in stage.inputs} else None
    check_inputs(arrays, stage.inputs, manifest.axes)
    batched = {spec.name: arrays[spec.name] for spec in stage.inputs if spec.shape[0] == "batch"}
    shared = {name: array for name, array in arrays.items() if name not in batched}
    rows = len(next(iter(batched.values())))
    unlabelled = Split(batched, np.arange(rows), shared)
    require_samples(unlabelled, str(path), "held-out", "the outputs for one tell little of those for others")
    if labels is None:
        return HeldOut(str(path), unlabelled, None, digest)
    metrics = _metrics(manifest, path)
    _check_labels(labels, rows, manifest, path)
    return HeldOut(str(path), Split(batched, labels, shared), metrics, digest)


def _check_labels(labels: NDArray[Any], rows: int, manifest: Manifest, path: Path) -> None:
    """One an example; of a classification, one of the classes."""
    if len(labels) != rows:
        raise InputError(f"{path} has {len(labels)} labels for {rows} examples; expected one an example.")
    if manifest.task not in _CLASSIFICATION:
        return
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path} has labels {labels.dtype} {list(labels.shape)}; expected whole numbers [{rows}], the index "
            "of each example's class."
        )
    classes = manifest.stages["full"].outputs[0].shape[-1]
    if isinstance(classes, int) and (wrong := np.flatnonzero((labels < 0) | (labels >= classes))).size:
        raise InputError(
            f"{path} has the label {labels[wrong[0]]} at example {wrong[0]}; expected 0 to {classes - 1}, the model's "
            "classes. Leave out examples of other classes."
        )


def _metrics(manifest: Manifest, path: Path) -> tuple[Metric, ...]:
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
