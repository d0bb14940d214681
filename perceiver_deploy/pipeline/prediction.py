"""Run: predictions for real files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.bundle import Bundle
from perceiver_deploy.data.files import read_example
from perceiver_deploy.data.text import decode
from perceiver_deploy.errors import BundleError
from perceiver_deploy.manifest import Manifest
from perceiver_deploy.preprocessing import TextPreprocessing
from perceiver_deploy.runtimes.loading import load
from perceiver_deploy.runtimes.session import Session

TOP = 5
Classes = tuple[tuple[str, float], ...]
"""Names of classes and their probabilities, the likeliest first."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file: the likeliest classes, or the text with its masked bytes filled in.

    `answers`: the likeliest classes of each task, where the model does several.
    """

    file: str
    classes: Classes = ()
    text: str | None = None
    answers: dict[str, Classes] | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def predict_files(
    bundle: str | Path,
    files: Sequence[str | Path],
    *,
    runtime: str = "auto",
    variant: str | None = None,
    threads: int | None = None,
) -> list[Prediction]:
    """Predict on files of the kind that the bundle's preprocessing is for, or on .npz files with its inputs.

    Raises:
        InputError: a file that cannot be read as what the task takes, or does not fit the model.
        BundleError, MissingError: the bundle cannot be run.
    """
    opened = Bundle.open(bundle)
    with load(opened, runtime=runtime, variant=variant, threads=threads) as session:
        return [_predict(opened, session, Path(file)) for file in files]


def _predict(bundle: Bundle, session: Session, file: Path) -> Prediction:
    manifest = bundle.manifest
    inputs = read_example(file, manifest.preprocessing, session.axes)
    if manifest.task == "multitask_text":
        inputs = {"task_ids": np.arange(session.axes["queries"].opt), **inputs}  # those of a .npz file come first
    outputs = session.run(inputs)
    if isinstance(manifest.preprocessing, TextPreprocessing) and manifest.task == "masked_lm":
        return _fill(file, inputs["input_ids"][0], outputs["logits"][0], manifest.preprocessing)
    if manifest.task == "multitask_text":
        return Prediction(str(file), answers=_answers(manifest, inputs["task_ids"], outputs["logits"][0]))
    if manifest.task.endswith("_classification"):
        return Prediction(str(file), _classes(outputs["logits"][0], manifest.labels))
    raise BundleError(f"{bundle.path} is for {manifest.task}, whose outputs cannot be shown. Use load() instead.")


def _classes(logits: NDArray[Any], labels: Sequence[str] | None) -> Classes:
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    names = labels or [str(index) for index in range(len(shares))]
    best = np.argsort(-shares, kind="stable")[:TOP]
    return tuple((names[index], float(shares[index])) for index in best)


def _answers(manifest: Manifest, task_ids: NDArray[Any], logits: NDArray[Any]) -> dict[str, Classes]:
    """The classes of each task asked for; a task may have fewer than there are logits."""
    if manifest.task_labels is None:
        return {str(task): _classes(row, None) for task, row in zip(task_ids, logits, strict=True)}
    tasks = list(manifest.task_labels.items())
    asked = [tasks[task] for task in task_ids]
    return {name: _classes(row[: len(labels)], labels) for (name, labels), row in zip(asked, logits, strict=True)}


def _fill(file: Path, ids: NDArray[np.int64], logits: NDArray[Any], preprocessing: TextPreprocessing) -> Prediction:
    likeliest = logits[:, preprocessing.byte_offset :].argmax(-1) + preprocessing.byte_offset
    filled = np.where(ids == preprocessing.mask_id, likeliest, ids)
    return Prediction(str(file), text=decode(filled, preprocessing))
