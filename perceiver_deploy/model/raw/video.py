"""Tasks on raw video, alone or with its sound."""

from __future__ import annotations

from torch import Tensor

from perceiver_deploy.bundle.manifest import Axis, Signature
from perceiver_deploy.bundle.preprocessing import VideoPreprocessing
from perceiver_deploy.model.raw.resize import BicubicResize
from perceiver_deploy.model.raw.wrapping import RawModel, pcm_spec, pixels_spec, sound_of
from perceiver_deploy.model.tasks.catalogue import PerceiverModel


class RawVideoModel(RawModel):
    """`video_uint8` [batch, frames, height, width, 3] of any height and width, and `pcm` [batch, samples].

    Pictures are scaled to cover the preprocessing's size and cropped to it; the sound is made louder by its gain.
    """

    def __init__(self, model: PerceiverModel, preprocessing: VideoPreprocessing) -> None:
        super().__init__(model)
        self.preprocessing = preprocessing
        self.resize = BicubicResize(preprocessing.size, cover=True)

    @property
    def signature(self) -> Signature:
        """Indices of points are of the resized pictures."""
        height, width = self.preprocessing.size
        plain = {spec.name: spec for spec in self.wrapped.signature.stage.inputs}
        raw = {"image": pixels_spec("video_uint8", "batch", "frames"), "audio": pcm_spec()}
        if "image_points" in plain:
            raw["image_points"] = plain["image_points"].model_copy(update={"maximum": f"frames*{height}*{width}-1"})
        return self._raw_signature(raw, {"height": Axis(opt=height), "width": Axis(opt=width)})

    def forward(
        self,
        video_uint8: Tensor,
        pcm: Tensor | None = None,
        label: Tensor | None = None,
        image_points: Tensor | None = None,
        audio_points: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The outputs of the model; label and points are taken as they are, by the task that takes them."""
        inputs = {"image": self.resize(video_uint8).to(self._dtype) / 255}
        if pcm is not None:
            inputs["audio"] = (sound_of(pcm, self._dtype) * self.preprocessing.gain).clamp(-1.0, 1.0)[..., None]
        rest = {"label": label, "image_points": image_points, "audio_points": audio_points}
        outputs: dict[str, Tensor] = self.wrapped(
            **inputs, **{name: part for name, part in rest.items() if part is not None}
        )
        return outputs
