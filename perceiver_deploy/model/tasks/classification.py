"""What all classifiers share: tokens to latents, latents to class logits."""

from __future__ import annotations

from torch import Tensor, nn

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, StageName, TensorSpec
from perceiver_deploy.model.config import DecoderConfig, PerceiverConfig
from perceiver_deploy.model.decoder import MeanDecoder, PerceiverDecoder
from perceiver_deploy.model.encoder import PerceiverEncoder
from perceiver_deploy.model.tasks.stages import split_signature

BATCH = Axis(opt=1)


class Classifier(nn.Module):
    """Base of the classifiers, whose `encode` makes tokens and hands them to `encode_tokens`."""

    def __init__(self, config: PerceiverConfig, input_adapter: nn.Module, input_channels: int) -> None:
        super().__init__()
        self.config = config
        self.input_adapter = input_adapter
        self.encoder = PerceiverEncoder(config, input_channels)
        self.decoder: PerceiverDecoder | MeanDecoder
        if isinstance(config.decoder, DecoderConfig):
            if config.decoder.num_queries is None:
                raise ValueError(f"task {config.task!r} needs decoder.num_queries")
            self.decoder = PerceiverDecoder(config, config.decoder)
        else:
            self.decoder = MeanDecoder(config, config.decoder)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        raise NotImplementedError

    @property
    def stages(self) -> dict[StageName, Signature]:
        """The decoder takes the latents alone."""
        signature = self.signature
        return split_signature(signature, self.config, data=[spec.name for spec in signature.stage.inputs])

    def encode_tokens(self, tokens: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Tokens [batch, tokens, channels] and mask [batch, tokens] to `latents` [batch, num_latents, d_latents]."""
        return {"latents": self.encoder(tokens, mask)}

    def decode(self, latents: Tensor) -> dict[str, Tensor]:
        """`latents` to `logits` [batch, classes]."""
        if isinstance(self.decoder, MeanDecoder):
            return {"logits": self.decoder(latents)}
        assert self.decoder.queries is not None
        return {"logits": self.decoder(latents, self.decoder.queries)[:, 0]}

    def classifier_signature(self, axes: dict[str, Axis], *inputs: TensorSpec) -> Signature:
        """Signature of a classifier with these inputs, their axes but for `batch`, and `logits`."""
        logits = TensorSpec(name="logits", dtype="float32", shape=("batch", classes(self.config)))
        return Signature(
            task=self.config.task, axes={"batch": BATCH, **axes}, stage=Stage(inputs=inputs, outputs=(logits,))
        )


def classes(config: PerceiverConfig) -> int:
    """Number of classes, or a ValueError where the decoder has none."""
    if config.decoder.output_channels is None:
        raise ValueError(f"task {config.task!r} needs decoder.output_channels")
    return config.decoder.output_channels


def mask_spec(*shape: int | str) -> TensorSpec:
    """The attention mask of inputs whose tokens have this shape."""
    return TensorSpec(name="attention_mask", dtype="int64", shape=shape, minimum=0, maximum=1)
