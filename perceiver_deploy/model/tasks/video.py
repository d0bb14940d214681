"""Classification of video."""

from __future__ import annotations

from torch import Tensor

from perceiver_deploy.bundle.manifest import Axis, Signature, TensorSpec
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.inputs.video import VideoInput, VideoInputAdapter
from perceiver_deploy.model.perceiver import Classifier
from perceiver_deploy.model.tasks.signatures import classifier_signature


class VideoClassifier(Classifier):
    """Frames to class logits."""

    def __init__(self, config: PerceiverConfig) -> None:
        assert isinstance(config.input, VideoInput)
        adapter = VideoInputAdapter(config.input)
        super().__init__(config, adapter, adapter.channels)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        assert isinstance(self.config.input, VideoInput)
        axes, image = video_input(self.config.input)
        return classifier_signature(self.config, axes, image)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """`image` [batch, frames, 3, height, width] to `logits` [batch, classes]."""
        return self.decode(**self.encode(image))

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """`image` to `latents`."""
        return {"latents": self.encoder(self.input_adapter(image))}


def video_input(config: VideoInput) -> tuple[dict[str, Axis], TensorSpec]:
    """Axes and specification of `image`."""
    frames, height, width = config.clip
    size = config.patch_size
    axes = {
        "frames": Axis(opt=frames),
        "height": Axis(min=size, opt=height, multiple_of=size),
        "width": Axis(min=size, opt=width, multiple_of=size),
    }
    return axes, TensorSpec(name="image", dtype="float32", shape=("batch", "frames", 3, "height", "width"))
