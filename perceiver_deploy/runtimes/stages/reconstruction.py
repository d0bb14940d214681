"""Full decoding in multimodal autoencoding: every pixel and every sample of a clip, a chunk of points at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import TensorSpec, evaluate_size
from perceiver_deploy.errors import InputError
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.stages.queries import CHUNK, run_in_chunks


def reconstruct_clip(session: Session, inputs: Mapping[str, NDArray[np.generic]], *, chunk: int = CHUNK) -> Arrays:
    """Reconstruct a whole clip.

    The clip is encoded once where the bundle has the stages `encoder` and `decoder`, for each chunk without them.

    Args:
        session: of a bundle for multimodal autoencoding.
        inputs: `image` [batch, frames, 3, height, width], `audio` [batch, samples, 1], `label` [batch, classes] or no
            label, which is zeros as in the paper.
        chunk: points decoded in one run, of the picture and of the sound each.

    Returns:
        `image` and `audio` in the shapes of the inputs, and `label_logits` [batch, classes].

    Raises:
        InputError: the session is not of such a bundle, or an input that does not fit it.
        UsageError: `chunk` is less than 1.
    """
    specs = {spec.name: spec for spec in session.inputs}
    if "image_points" not in specs:
        raise InputError(f"The model takes {', '.join(specs)}; only multimodal autoencoding has points to decode.")
    if "image" not in specs:
        raise InputError(
            f"The bundle takes raw data ({', '.join(specs)}); whole clips are reconstructed from the arrays of a "
            "bundle that was exported without --raw-inputs."
        )
    if missing := {"image", "audio"} - inputs.keys():
        raise InputError(f"Input {min(missing)!r} is missing: a clip is pictures with their sound.")
    image, audio = inputs["image"], inputs["audio"]
    if image.ndim != 5 or audio.ndim != 3:
        raise InputError(
            f"image has shape {list(image.shape)} and audio {list(audio.shape)}; expected "
            "[batch, frames, 3, height, width] and [batch, samples, 1]."
        )
    batch, frames, colours, height, width = image.shape
    points = {
        "image_points": np.arange(frames * height * width),
        "audio_points": np.arange(max(1, audio.shape[1] // _samples_per_patch(session))),
    }
    outputs = run_in_chunks(session, {"label": _no_label(specs["label"], batch), **inputs, **points}, chunk=chunk)
    pixels = outputs["image_reconstruction"].reshape(batch, frames, height, width, colours)
    return {
        "image": np.ascontiguousarray(np.moveaxis(pixels, -1, 2)),
        "audio": outputs["audio_reconstruction"][..., None],
        "label_logits": outputs["label_logits"],
    }


def _no_label(spec: TensorSpec, batch: int) -> NDArray[np.float32]:
    classes = spec.shape[1]
    assert isinstance(classes, int)
    return np.zeros((batch, classes), np.float32)


def _samples_per_patch(session: Session) -> int:
    """How many samples the model gives for one point of the sound."""
    (size,) = (spec.shape[1] for spec in session.outputs if spec.name == "audio_reconstruction")
    return evaluate_size(size, {"queries_audio": 1})
