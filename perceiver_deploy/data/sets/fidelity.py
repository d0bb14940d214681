"""Metrics of multimodal autoencoding: PSNR of pictures and sound (peak value 1), and the label's accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.metrics import Metric


def psnr(reconstruction: NDArray[Any], original: NDArray[Any]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB of each example [examples, ...], for signals whose peak value is 1.

    Infinite where nothing differs.
    """
    difference = reconstruction.astype(np.float64) - original
    error = np.square(difference).reshape(len(difference), -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(error)


def _image(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
    pixels = np.moveaxis(inputs["image"], 2, -1).reshape(len(inputs["image"]), -1, 3)
    return psnr(outputs["image_reconstruction"], pixels[:, inputs["image_points"].astype(np.int64)])


def _audio(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
    points = inputs["audio_points"].astype(np.int64)
    patch = outputs["audio_reconstruction"].shape[1] // len(points)
    patches = inputs["audio"].reshape(len(inputs["audio"]), -1, patch)
    return psnr(outputs["audio_reconstruction"], patches[:, points].reshape(len(patches), -1))


def _label(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
    return (outputs["label_logits"].argmax(-1) == targets).astype(np.float64)


IMAGE_PSNR = Metric("image PSNR", "dB", True, _image)
AUDIO_PSNR = Metric("audio PSNR", "dB", True, _audio)
LABEL_TOP1 = Metric("label top-1 accuracy", "%", True, _label)
