"""Full decoding in multimodal autoencoding: every pixel and every sample of a clip, a chunk of points at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import InputError, UsageError
from perceiver_deploy.manifest import TensorSpec, evaluate_size
from perceiver_deploy.runtimes.session import Session

CHUNK = 8192
_FILLER = np.zeros(1, np.int64)

Decode = Callable[[Arrays], Arrays]
"""Points to what is reconstructed there."""


def reconstruct_clip(session: Session, inputs: Mapping[str, NDArray[np.generic]], *, chunk: int = CHUNK) -> Arrays:
    """Reconstruct a whole clip.

    Each point is decoded independently of the others, so the numbers are those of one call; its memory is not, because
    attention over the points grows with `chunk`.

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
    if chunk < 1:
        raise UsageError(f"chunk is {chunk}; expected at least 1.")
    specs = {spec.name: spec for spec in session.inputs}
    if "image_points" not in specs:
        raise InputError(f"The model takes {', '.join(specs)}; only multimodal autoencoding has points to decode.")
    if missing := {"image", "audio"} - inputs.keys():
        raise InputError(f"Input {min(missing)!r} is missing: a clip is pictures with their sound.")
    image, audio = inputs["image"], inputs["audio"]
    if image.ndim != 5 or audio.ndim != 3:
        raise InputError(
            f"image has shape {list(image.shape)} and audio {list(audio.shape)}; expected "
            "[batch, frames, 3, height, width] and [batch, samples, 1]."
        )
    batch, frames, colours, height, width = image.shape
    clip = {"label": _no_label(specs["label"], batch), **inputs}
    patch = _samples_per_patch(session)
    counts = frames * height * width, max(1, audio.shape[1] // patch)
    decode = _decoder(session, clip)
    parts = [decode({"image_points": image, "audio_points": audio}) for image, audio in _chunks(*counts, chunk)]
    pixels, samples = (
        np.concatenate([part[f"{name}_reconstruction"] for part in parts], axis=1) for name in ("image", "audio")
    )
    pixels = pixels[:, : counts[0]].reshape(batch, frames, height, width, colours)
    return {
        "image": np.ascontiguousarray(np.moveaxis(pixels, -1, 2)),
        "audio": samples[:, : counts[1] * patch, None],
        "label_logits": parts[0]["label_logits"],
    }


def _decoder(session: Session, clip: Arrays) -> Decode:
    """The stage `full` encodes the clip again for every chunk."""
    return lambda points: session.run({**clip, **points})


def _chunks(pixels: int, patches: int, chunk: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Points of picture and sound; a run needs both, so the one that is through first goes on with a filler."""
    image, audio = (np.split(np.arange(count), range(chunk, count, chunk)) for count in (pixels, patches))
    return zip_longest(image, audio, fillvalue=_FILLER)


def _no_label(spec: TensorSpec, batch: int) -> NDArray[np.float32]:
    classes = spec.shape[1]
    assert isinstance(classes, int)
    return np.zeros((batch, classes), np.float32)


def _samples_per_patch(session: Session) -> int:
    """How many samples the model gives for one point of the sound."""
    (size,) = (spec.shape[1] for spec in session.outputs if spec.name == "audio_reconstruction")
    return evaluate_size(size, {"queries_audio": 1})
