"""Entities: an answer for the set and one for each of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, StageName, TensorSpec
from perceiver_deploy.model.config import DecoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.entities import EntitiesInput, EntitiesInputAdapter
from perceiver_deploy.model.perceiver import PerceiverDecoder, PerceiverEncoder
from perceiver_deploy.model.stages import split_signature
from perceiver_deploy.model.tasks.signatures import BATCH, classes, mask_spec


class EntitiesModel(nn.Module):
    """A set of entities to logits of the set (one trainable query) and of each entity (queried by its own token).

    Logits of masked entities are zero. Source: Perceiver IO, section 4.4 (StarCraft II).
    """

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        assert isinstance(config.input, EntitiesInput)
        assert isinstance(config.decoder, DecoderConfig)
        if config.decoder.num_queries is None or config.decoder.query_channels != config.input.channels:
            raise ValueError("task 'entities' needs decoder.num_queries, and decoder.query_channels = input.channels")
        self.config = config
        self.input_adapter = EntitiesInputAdapter(config.input, config.initializer_range)
        self.encoder = PerceiverEncoder(config, self.input_adapter.channels)
        self.decoder = PerceiverDecoder(config, config.decoder)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes; a table of places bounds the number of entities."""
        config = self.config.input
        assert isinstance(config, EntitiesInput)
        entities = TensorSpec(name="entities", dtype="float32", shape=("batch", "entities", config.features))
        count = classes(self.config)
        outputs = (
            TensorSpec(name="logits", dtype="float32", shape=("batch", count)),
            TensorSpec(name="entity_logits", dtype="float32", shape=("batch", "entities", count)),
        )
        return Signature(
            task=self.config.task,
            axes={"batch": BATCH, "entities": Axis(opt=config.entities, max=config.max_entities)},
            stage=Stage(inputs=(entities, mask_spec("batch", "entities")), outputs=outputs),
        )

    @property
    def stages(self) -> dict[StageName, Signature]:
        """The decoder takes the entities too, because each is a query."""
        full = self.signature
        return split_signature(full, self.config, data=["entities", "attention_mask"], queries=full.stage.inputs)

    def forward(self, entities: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`entities` [batch, entities, features], `attention_mask` [batch, entities] to the signature's outputs."""
        tokens = self.input_adapter(entities)
        return self._answer(self.encoder(tokens, attention_mask), tokens, attention_mask)

    def encode(self, entities: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`entities`, `attention_mask` to `latents`."""
        return {"latents": self.encoder(self.input_adapter(entities), attention_mask)}

    def decode(self, latents: Tensor, entities: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`latents` and the entities they are of to the signature's outputs."""
        return self._answer(latents, self.input_adapter(entities), attention_mask)

    def _answer(self, latents: Tensor, tokens: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        assert self.decoder.queries is not None
        queries = torch.cat([self.decoder.queries[:1].expand(tokens.shape[0], -1, -1), tokens], dim=1)
        decoded = self.decoder(latents, queries)
        present = (attention_mask != 0)[..., None].to(decoded.dtype)
        return {"logits": decoded[:, 0], "entity_logits": decoded[:, 1:] * present}
