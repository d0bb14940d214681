"""Image classification."""

from __future__ import annotations

from torch import Tensor

from perceiver_deploy.bundle.manifest import Axis, Signature, TensorSpec
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.inputs.image import ConvStem, ImageInput, ImageInputAdapter
from perceiver_deploy.model.perceiver import Classifier
from perceiver_deploy.model.positions import LearnedPositions
from perceiver_deploy.model.tasks.signatures import classifier_signature


class ImageClassifier(Classifier):
    """Images to class logits."""

    def __init__(self, config: PerceiverConfig) -> None:
        assert isinstance(config.input, ImageInput)
        adapter = ImageInputAdapter(config.input, config.initializer_range)
        super().__init__(config, adapter, adapter.channels)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes; a learned position table bounds height and width."""
        image = self.config.input
        assert isinstance(image, ImageInput)
        bounds = image.positions.index_dims if isinstance(image.positions, LearnedPositions) else (None, None)
        least = ConvStem.min_size if image.stem == "conv" else 1
        axes = {
            name: Axis(min=least, opt=opt, max=bound)
            for name, opt, bound in zip(("height", "width"), image.image_size, bounds, strict=True)
        }
        shape = ("batch", image.image_channels, "height", "width")
        return classifier_signature(self.config, axes, TensorSpec(name="pixel_values", dtype="float32", shape=shape))

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """`pixel_values` [batch, 3, height, width] to `logits` [batch, classes]."""
        return self.decode(**self.encode(pixel_values))

    def encode(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """`pixel_values` to `latents`."""
        return {"latents": self.encoder(self.input_adapter(pixel_values))}
