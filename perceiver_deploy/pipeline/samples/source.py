"""THE reader of samples: what `--calibration`, `--held-out` and `--data` name, as a bundle's model takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Manifest
from perceiver_deploy.data.datasets import DATA_SETS, DataSet, load_dataset_for
from perceiver_deploy.data.media.files import ARRAYS_SUFFIX, read_arrays
from perceiver_deploy.data.metrics import Metric
from perceiver_deploy.data.sets.raw_sets import raw_data_set
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import InputError
from perceiver_deploy.runtimes.checks.inputs import check_inputs

LABELS = "labels"
"""What the array of labels of a .npz file is called."""
DataPart = Literal["train", "test"]
"""Of a data set; a file has one part."""


@dataclass(frozen=True)
class SampleSource:
    """Samples that a bundle's model takes, checked against its inputs, and where they are from.

    The targets of `split` are the labels, or the numbers of the rows where there are none. `metrics` are those of a
    data set.
    """

    name: str
    split: Split
    labelled: bool
    metrics: tuple[Metric, ...] | None = None


def read_source(
    bundle: Bundle, given: str | Path, part: DataPart, purpose: str, *, judged: bool = False
) -> SampleSource:
    """A part of a data set, or a .npz file with one array for each input and, if there are any, `labels`.

    With `judged`, a data set must have the labels of the model.

    Raises:
        InputError: neither, data of another task, or what the model does not take; `purpose` names the data.
        UsageError, MissingError: as `load_dataset`.
    """
    if str(given) in DATA_SETS:
        data = labelled_data(bundle, str(given)) if judged else _load(bundle, str(given))
        split, manifest = data.test if part == "test" else data.train, bundle.manifest
        check_inputs(split.rows(slice(None)), manifest.stages["full"].inputs, manifest.axes)
        return SampleSource(data.name, split, labelled=True, metrics=data.metrics)
    if Path(given).suffix == ARRAYS_SUFFIX:
        return _from_file(bundle.manifest, Path(given))
    raise InputError(f"{purpose} {given} is neither a data set ({', '.join(DATA_SETS)}) nor a .npz file.")


def labelled_data(bundle: Bundle, name: str) -> DataSet:
    """A data set whose labels are the model's, in the form that the bundle takes.

    Raises:
        InputError: it is for another task, or has other labels than the model: its metric would mean nothing.
        UsageError, MissingError: as `load_dataset`.
    """
    data = _load(bundle, name)
    if bundle.manifest.labels != data.labels:
        theirs, ours = (", ".join(labels or ("none",))[:60] for labels in (data.labels, bundle.manifest.labels))
        raise InputError(
            f"Data set {data.name!r} has other labels than {bundle.path}: {theirs} against {ours}. "
            "Give the data set that the model was trained for."
        )
    return data


def _load(bundle: Bundle, name: str) -> DataSet:
    data = load_dataset_for(bundle.manifest.task, name, str(bundle.path))
    return raw_data_set(data) if bundle.manifest.raw_inputs else data


def _from_file(manifest: Manifest, path: Path) -> SampleSource:
    arrays = read_arrays(path)
    stage = manifest.stages["full"]
    labels = arrays.pop(LABELS, None) if LABELS not in {spec.name for spec in stage.inputs} else None
    check_inputs(arrays, stage.inputs, manifest.axes)
    batched = {spec.name: arrays[spec.name] for spec in stage.inputs if spec.shape[0] == "batch"}
    shared = {name: array for name, array in arrays.items() if name not in batched}
    rows = len(next(iter(batched.values())))
    if labels is not None and len(labels) != rows:
        raise InputError(f"{path} has {len(labels)} labels for {rows} examples; expected one label per example.")
    targets: NDArray[Any] = np.arange(rows) if labels is None else labels
    return SampleSource(str(path), Split(batched, targets, shared), labelled=labels is not None)
