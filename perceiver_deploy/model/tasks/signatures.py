"""What the signatures of several tasks share."""

from __future__ import annotations

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, TensorSpec
from perceiver_deploy.model.config import PerceiverConfig

BATCH = Axis(opt=1)


def classifier_signature(config: PerceiverConfig, axes: dict[str, Axis], *inputs: TensorSpec) -> Signature:
    """Signature of a classifier with these inputs, their axes but for `batch`, and `logits`."""
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", classes(config)))
    return Signature(task=config.task, axes={"batch": BATCH, **axes}, stage=Stage(inputs=inputs, outputs=(logits,)))


def classes(config: PerceiverConfig) -> int:
    """Number of classes, or a ValueError where the decoder has none."""
    if config.decoder.output_channels is None:
        raise ValueError(f"task {config.task!r} needs decoder.output_channels")
    return config.decoder.output_channels


def mask_spec(*shape: int | str) -> TensorSpec:
    """The attention mask of inputs whose tokens have this shape."""
    return TensorSpec(name="attention_mask", dtype="int64", shape=shape, minimum=0, maximum=1)
