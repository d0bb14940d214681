"""Images: reading files and the preprocessing the bundle states."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.bundle.preprocessing import ImagePreprocessing
from perceiver_deploy.errors import InputError, requires

if TYPE_CHECKING:
    from PIL import Image


def read_image(path: Path) -> Image.Image:
    """An image file as RGB, turned upright as its EXIF data says.

    Raises:
        InputError: no file there, or not an image of 8 bits a channel.
        MissingError: Pillow is not installed.
    """
    with requires("media", "Reading images"):
        from PIL import Image, ImageOps, UnidentifiedImageError
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode}, expected 8 bits a channel")
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist. Give the path of a PNG or JPEG file.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image ({error}). Give a PNG or JPEG file.") from None


def preprocess_image(image: Image.Image, preprocessing: ImagePreprocessing) -> NDArray[np.float32]:
    """Crop, resize and normalise: an RGB image to float32 [3, height, width]."""
    from PIL import Image

    if preprocessing.crop_fraction is not None:
        image = _centre_crop(image, int(preprocessing.crop_fraction * min(image.size)))
    if preprocessing.size is not None:
        height, width = preprocessing.size
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return normalize(np.asarray(image), preprocessing)


def normalize(pixels: NDArray[np.uint8], preprocessing: ImagePreprocessing) -> NDArray[np.float32]:
    """uint8 [..., height, width, 3] to float32 [..., 3, height, width], as (x / 255 - mean) / std."""
    mean, std = (np.array(values, np.float32) for values in (preprocessing.mean, preprocessing.std))
    scaled = (pixels.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def _centre_crop(image: Image.Image, side: int) -> Image.Image:
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
