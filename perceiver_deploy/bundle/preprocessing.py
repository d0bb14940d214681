"""What a model expects done to raw data before it: one class a modality, stated in the bundle's manifest."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from perceiver_deploy.strict import Strict

MASKED_BYTE = 255
"""What stands for a masked byte in raw text: UTF-8 never has it."""


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


class FlowPreprocessing(Strict):
    """Two frames as x / 255 * 2 - 1, zero-padded by one pixel, cut into the 3 x 3 patch around each pixel.

    Frames larger than `tile_size` are cut into tiles that overlap by `min_overlap` or more. The model's output times
    `output_scale` is the flow in pixels. Source: Perceiver IO, section 4.2; the defaults are the published model's.
    """

    kind: Literal["flow"] = "flow"
    tile_size: tuple[PositiveInt, PositiveInt] = Field((368, 496), description="height and width")
    min_overlap: NonNegativeInt = 20
    output_scale: float = 20.0

    @classmethod
    def for_size(cls, size: tuple[int, int]) -> Self:
        """What a model trained on frames of `size` [height, width] as the published one was expects."""
        return cls(tile_size=size, min_overlap=min(20, min(size) // 2))

    @model_validator(mode="after")
    def _overlap_is_smaller_than_a_tile(self) -> Self:
        if self.min_overlap >= min(self.tile_size):
            raise ValueError(f"min_overlap {self.min_overlap} is not smaller than the tile {self.tile_size}")
        return self


class VideoPreprocessing(Strict):
    """Pictures scaled (bicubic) to cover `size`, centre-cropped to it, / 255; the sound mono in [-1, 1].

    The first `frames` pictures are taken, every `stride`-th of `frame_rate` a second. With a `sample_rate` the sound of
    the same time goes with them, times `gain` and clipped to [-1, 1].
    """

    kind: Literal["video"] = "video"
    size: tuple[PositiveInt, PositiveInt] = Field(description="height and width fed to the model")
    frames: PositiveInt
    frame_rate: PositiveFloat | None = Field(default=None, description="pictures a second; None keeps the film's own")
    stride: PositiveInt = 1
    sample_rate: PositiveInt | None = Field(default=None, description="samples a second; None leaves the sound out")
    gain: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _sound_keeps_pace(self) -> Self:
        if self.sample_rate is not None:
            if self.frame_rate is None:
                raise ValueError("sample_rate needs frame_rate, so that pictures and sound keep pace")
            if (self.sample_rate * self.stride / self.frame_rate) % 1:
                raise ValueError(f"sample_rate {self.sample_rate} is not a whole number of samples per picture")
        return self

    @property
    def samples(self) -> int:
        """Samples of sound that go with the pictures."""
        if self.sample_rate is None or self.frame_rate is None:
            return 0
        return self.frames * round(self.sample_rate * self.stride / self.frame_rate)


class PointsPreprocessing(Strict):
    """`points` points drawn uniformly from a mesh's surface with `seed`, moved to mean 0, farthest at distance 1.

    The second axis points up.
    """

    kind: Literal["points"] = "points"
    points: PositiveInt = 1024
    seed: int = 0


class EntitiesPreprocessing(Strict):
    """One row of raw features as a set: each an entity of one feature, (x - mean) / std, masked where it is missing."""

    kind: Literal["entities"] = "entities"
    names: tuple[str, ...] = Field(
        min_length=1, description="the features, in the order of the model's table of places"
    )
    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if not len(self.names) == len(set(self.names)) == len(self.mean) == len(self.std):
            raise ValueError(f"{len(self.names)} names (each once), {len(self.mean)} means and {len(self.std)} stds")
        return self


Preprocessing = Annotated[
    ImagePreprocessing
    | TextPreprocessing
    | AudioPreprocessing
    | FlowPreprocessing
    | VideoPreprocessing
    | PointsPreprocessing
    | EntitiesPreprocessing,
    Field(discriminator="kind"),
]
