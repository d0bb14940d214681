"""Run: predictions for real files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Manifest
from perceiver_deploy.bundle.preprocessing import FlowPreprocessing, TextPreprocessing, VideoPreprocessing
from perceiver_deploy.data.media.files import ARRAYS_SUFFIX, read_example
from perceiver_deploy.data.media.flow import estimate_flow, read_frames
from perceiver_deploy.data.media.flow_files import write_flow
from perceiver_deploy.data.media.text import decode, tokens_of
from perceiver_deploy.data.media.video import write_clip
from perceiver_deploy.data.sets.fidelity import psnr
from perceiver_deploy.errors import BundleError, UsageError
from perceiver_deploy.runtimes.opening import load
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.stages.queries import run_in_chunks
from perceiver_deploy.runtimes.stages.reconstruction import reconstruct_clip

TOP = 5
Classes = tuple[tuple[str, float], ...]
"""Names of classes and their probabilities, the likeliest first."""

_SAVED_TASKS = ("optical_flow", "multimodal_autoencoding")


@dataclass(frozen=True)
class FlowSummary:
    """Mean and longest length of a flow's vectors, in pixels, and its size."""

    mean: float
    longest: float
    height: int
    width: int


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file: the likeliest classes, or the text with its masked bytes filled in.

    For two frames: their flow. `answers`: the likeliest classes of each task, where the model does several. `psnr`: dB
    of what was reconstructed against the file, by `image` and `audio`. `files`: what was written.
    """

    file: str
    classes: Classes = ()
    text: str | None = None
    flow: FlowSummary | None = None
    answers: dict[str, Classes] = field(default_factory=dict)
    psnr: dict[str, float] = field(default_factory=dict)
    files: tuple[str, ...] = ()

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
    save: Path | None = None,
) -> list[Prediction]:
    """Predict on files of the kind that the bundle's preprocessing is for, or on .npz files with its inputs.

    Two images are one example of optical flow. `save`: folder to write outputs into that are not text.

    Raises:
        UsageError: `save` with a task whose outputs are text, or what is to be written is there already.
        InputError: a file that cannot be read as what the task takes, or does not fit the model.
        BundleError, MissingError: the bundle cannot be run.
    """
    opened = Bundle.open(bundle)
    task, paths = opened.manifest.task, [Path(file) for file in files]
    if save is not None and task not in _SAVED_TASKS:
        raise UsageError(f"--save is for {', '.join(_SAVED_TASKS)}; all that {task} gives is shown. Leave it out.")
    with load(opened, runtime=runtime, variant=variant, threads=threads) as session:
        preprocessing = opened.manifest.preprocessing
        if isinstance(preprocessing, FlowPreprocessing) and {path.suffix for path in paths} != {ARRAYS_SUFFIX}:
            run = partial(run_in_chunks, session) if "decoder" in session.stages else session.run
            flow = estimate_flow(run, read_frames(paths), preprocessing, raw=opened.manifest.raw_inputs)
            return [_flow(paths, flow, save)]
        return [_predict(opened, session, path, save) for path in paths]


def _predict(bundle: Bundle, session: Session, file: Path, save: Path | None) -> Prediction:
    manifest = bundle.manifest
    inputs = read_example(file, manifest.preprocessing, session.axes, raw=manifest.raw_inputs)
    if manifest.task == "multimodal_autoencoding":
        return _reconstruct(bundle, session, file, inputs, save)
    if manifest.task == "multitask_text":
        inputs = {"task_ids": np.arange(session.axes["queries"].opt), **inputs}  # those of a .npz file come first
    outputs = session.run(inputs)
    if isinstance(manifest.preprocessing, TextPreprocessing) and manifest.task == "masked_lm":
        text = manifest.preprocessing
        ids = tokens_of(inputs["utf8"][0], text) if manifest.raw_inputs else inputs["input_ids"][0]
        return _fill(file, ids, outputs["logits"][0], text)
    if manifest.task == "multitask_text":
        return Prediction(str(file), answers=_answers(manifest, inputs["task_ids"], outputs["logits"][0]))
    if manifest.task.endswith("_classification") or manifest.task == "entities":
        return Prediction(str(file), _classes(outputs["logits"][0], manifest.labels))
    if isinstance(manifest.preprocessing, FlowPreprocessing):
        scale = 1.0 if manifest.raw_inputs else manifest.preprocessing.output_scale
        return _flow([file], outputs["flow"][0] * np.float32(scale), save)
    raise BundleError(f"{bundle.path} is for {manifest.task}, whose outputs cannot be shown. Use load() instead.")


def _reconstruct(bundle: Bundle, session: Session, file: Path, inputs: Arrays, save: Path | None) -> Prediction:
    """The whole clip even of a file with points, such as an example of a data set."""
    clip = {name: array for name, array in inputs.items() if not name.endswith("_points")}
    whole = reconstruct_clip(session, clip)
    preprocessing = bundle.manifest.preprocessing
    written: tuple[str, ...] = ()
    if save is not None:
        if not isinstance(preprocessing, VideoPreprocessing):
            raise BundleError(f"{bundle.path} does not state how its clips are made, so none can be written.")
        written = write_clip(save / file.stem, whole, preprocessing)
    return Prediction(
        str(file),
        classes=_classes(whole["label_logits"][0], bundle.manifest.labels),
        psnr={name: float(psnr(whole[name], clip[name])[0]) for name in ("image", "audio")},
        files=written,
    )


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


def _flow(files: Sequence[Path], flow: NDArray[np.float32], save: Path | None) -> Prediction:
    lengths = np.linalg.norm(flow, axis=-1)
    summary = FlowSummary(float(lengths.mean()), float(lengths.max()), *lengths.shape)
    written = () if save is None else write_flow(flow, save, files[0].stem)
    name = " -> ".join(str(file) for file in files)
    return Prediction(name, flow=summary, files=tuple(str(file) for file in written))


def _fill(file: Path, ids: NDArray[np.int64], logits: NDArray[Any], preprocessing: TextPreprocessing) -> Prediction:
    likeliest = logits[:, preprocessing.byte_offset :].argmax(-1) + preprocessing.byte_offset
    filled = np.where(ids == preprocessing.mask_id, likeliest, ids)
    return Prediction(str(file), text=decode(filled, preprocessing))
