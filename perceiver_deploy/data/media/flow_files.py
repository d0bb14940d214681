"""Writing optical flow: NumPy, Middlebury's .flo, and a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.errors import InputError, requires

_FLO_MAGIC = b"PIEH"


def write_flow(flow: NDArray[np.float32], folder: Path, name: str) -> tuple[Path, ...]:
    """Write a flow [height, width, 2] in pixels as `name`.npy, `name`.flo and `name`.png; returns the files.

    Raises:
        InputError: the folder cannot be written to.
        MissingError: Pillow is not installed.
    """
    with requires("media", "Writing pictures of flow"):
        from PIL import Image
    npy, flo, png = (folder / f"{name}{suffix}" for suffix in (".npy", ".flo", ".png"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(npy, flow)
        flo.write_bytes(encode_flo(flow))
        Image.fromarray(colour_wheel(flow)).save(png)
    except OSError as error:
        raise InputError(f"The flow cannot be written to {folder} ({error}). Choose a folder that can be.") from None
    return npy, flo, png


def encode_flo(flow: NDArray[np.float32]) -> bytes:
    """A flow [height, width, 2] as Middlebury's .flo: magic, width, height, then x and y of each pixel (float32).

    Source: Baker et al., "A Database and Evaluation Methodology for Optical Flow", 2007; little-endian.
    """
    height, width, _ = flow.shape
    return _FLO_MAGIC + np.array([width, height], "<i4").tobytes() + flow.astype("<f4").tobytes()


def colour_wheel(flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Picture [height, width, 3]: direction as hue, length as saturation.

    Red is to the right, hues turn clockwise over green; nothing moving is white, the longest vector has full colour.
    """
    from PIL import Image

    length = np.linalg.norm(flow, axis=-1)
    hue = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) % 1
    saturation = length / max(float(length.max()), np.finfo(np.float32).tiny)
    hsv = np.stack([hue, saturation, np.ones_like(hue)], axis=-1)
    return np.asarray(Image.fromarray(np.rint(255 * hsv).astype(np.uint8), "HSV").convert("RGB"))
