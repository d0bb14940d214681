"""What a model expects done to raw data before it: one class a modality, stated in the bundle's manifest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perceiver_deploy.strict import Strict


class ImagePreprocessing(Strict):
    """Centre crop to `crop_fraction` of the short side, bicubic resize to `size`, then (x / 255 - mean) / std."""

    kind: Literal["image"] = "image"
    size: tuple[int, int] | None = Field(description="height and width fed to the model; None keeps the image's own")
    crop_fraction: float | None = None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class TextPreprocessing(Strict):
    """UTF-8 bytes plus `byte_offset`, between `cls_id` and `sep_id`, padded with `pad_id`."""

    kind: Literal["text"] = "text"
    byte_offset: int = 6
    pad_id: int = 0
    mask_id: int = 3
    cls_id: int = 4
    sep_id: int = 5


Preprocessing = Annotated[ImagePreprocessing | TextPreprocessing, Field(discriminator="kind")]
