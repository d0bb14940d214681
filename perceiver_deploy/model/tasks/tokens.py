"""Perceiver IO itself: tokens and queries that somebody else made to answers."""

from __future__ import annotations

from torch import Tensor, nn

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, StageName, TensorSpec
from perceiver_deploy.model.config import DecoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.tokens import TokensInput
from perceiver_deploy.model.perceiver import PerceiverDecoder, PerceiverEncoder
from perceiver_deploy.model.stages import split_signature
from perceiver_deploy.model.tasks.signatures import BATCH, mask_spec


class TokensModel(nn.Module):
    """Any tokens, asked with any queries: what stands before and behind a Perceiver IO is the user's."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        assert isinstance(config.input, TokensInput)
        assert isinstance(config.decoder, DecoderConfig)
        if config.decoder.num_queries is not None:
            raise ValueError(
                f"task 'tokens' takes queries as input: decoder.num_queries {config.decoder.num_queries} must be null"
            )
        self.config = config
        self.encoder = PerceiverEncoder(config, config.input.channels)
        self.decoder = PerceiverDecoder(config, config.decoder)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes; nothing bounds how many tokens and queries there are."""
        config, decoder = self.config.input, self.config.decoder
        assert isinstance(config, TokensInput)
        assert isinstance(decoder, DecoderConfig)
        channels = decoder.output_channels or decoder.query_channels
        tokens = TensorSpec(name="tokens", dtype="float32", shape=("batch", "length", config.channels))
        queries = TensorSpec(name="queries", dtype="float32", shape=("batch", "queries", decoder.query_channels))
        outputs = TensorSpec(name="outputs", dtype="float32", shape=("batch", "queries", channels))
        return Signature(
            task=self.config.task,
            axes={"batch": BATCH, "length": Axis(opt=config.tokens), "queries": Axis(opt=config.queries)},
            stage=Stage(inputs=(tokens, mask_spec("batch", "length"), queries), outputs=(outputs,)),
        )

    @property
    def stages(self) -> dict[StageName, Signature]:
        """The decoder takes the queries."""
        full = self.signature
        queries = full.stage.inputs[-1:]
        return split_signature(full, self.config, data=["tokens", "attention_mask"], queries=queries)

    def forward(self, tokens: Tensor, attention_mask: Tensor, queries: Tensor) -> dict[str, Tensor]:
        """Inputs and outputs are those of the signature."""
        return self.decode(**self.encode(tokens, attention_mask), queries=queries)

    def encode(self, tokens: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`tokens`, `attention_mask` to `latents`."""
        return {"latents": self.encoder(tokens, attention_mask)}

    def decode(self, latents: Tensor, queries: Tensor) -> dict[str, Tensor]:
        """`latents`, `queries` to `outputs`."""
        return {"outputs": self.decoder(latents, queries)}
