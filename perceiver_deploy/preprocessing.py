"""What a model expects done to raw data before it: one class a modality, stated in the bundle's manifest."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

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


class AudioPreprocessing(Strict):
    """Mono sound in [-1, 1], its first `samples` samples, filled up with zeros; the mask has one entry a patch."""

    kind: Literal["audio"] = "audio"
    sample_rate: PositiveInt = Field(description="samples a second; sound of another rate is refused")
    samples: PositiveInt = Field(description="samples fed to the model, a multiple of samples_per_patch")
    samples_per_patch: PositiveInt

    @model_validator(mode="after")
    def _whole_patches(self) -> Self:
        if self.samples % self.samples_per_patch:
            raise ValueError(f"samples {self.samples}, expected a multiple of samples_per_patch")
        return self


Preprocessing = Annotated[ImagePreprocessing | TextPreprocessing | AudioPreprocessing, Field(discriminator="kind")]
