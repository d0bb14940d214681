"""Classification of point clouds."""

from __future__ import annotations

from torch import Tensor

from perceiver_deploy.bundle.manifest import Axis, Signature, TensorSpec
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.inputs.points import PointsInput, PointsInputAdapter
from perceiver_deploy.model.perceiver import Classifier
from perceiver_deploy.model.tasks.signatures import classifier_signature, mask_spec


class PointCloudClassifier(Classifier):
    """Points to class logits."""

    def __init__(self, config: PerceiverConfig) -> None:
        assert isinstance(config.input, PointsInput)
        adapter = PointsInputAdapter(config.input)
        super().__init__(config, adapter, adapter.channels)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        assert isinstance(self.config.input, PointsInput)
        points = TensorSpec(name="points", dtype="float32", shape=("batch", "points", 3))
        axes = {"points": Axis(opt=self.config.input.points)}
        return classifier_signature(self.config, axes, points, mask_spec("batch", "points"))

    def forward(self, points: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`points` [batch, points, 3], `attention_mask` [batch, points] to `logits` [batch, classes]."""
        return self.decode(**self.encode(points, attention_mask))

    def encode(self, points: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`points`, `attention_mask` to `latents`."""
        return {"latents": self.encoder(self.input_adapter(points), attention_mask)}
