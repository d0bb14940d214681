"""Text as bytes: masked language modelling, classification, and several tasks at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, StageName, TensorSpec
from perceiver_deploy.model.config import DecoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.text import TextInput, TextInputAdapter
from perceiver_deploy.model.perceiver import Classifier, PerceiverDecoder, PerceiverEncoder
from perceiver_deploy.model.stages import split_signature
from perceiver_deploy.model.tasks.signatures import BATCH, classes, classifier_signature, mask_spec

_OPT_LENGTH = 512


class MaskedLanguageModel(nn.Module):
    """Bytes to logits over the vocabulary at every position of the given length.

    Queries are trainable, one per position, or the embedded tokens where `decoder.num_queries` is None. Logits are
    products with the token embeddings, or a projection where `decoder.output_channels` says of how many.
    """

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        assert isinstance(config.input, TextInput)
        assert isinstance(config.decoder, DecoderConfig)
        _check_language_decoder(config.input, config.decoder)
        self.config = config
        self.input_adapter = TextInputAdapter(config.input, config.initializer_range)
        self.encoder = PerceiverEncoder(config, self.input_adapter.channels)
        self.decoder = PerceiverDecoder(config, config.decoder)
        self.masks_queries = config.semantics.masked_queries == "zeros"
        self.output_bias = None
        if config.decoder.output_channels is None:
            self.output_bias = nn.Parameter(torch.zeros(config.input.vocab_size))

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        vocabulary = self.input_adapter.embeddings.num_embeddings
        logits = TensorSpec(name="logits", dtype="float32", shape=("batch", "length", vocabulary))
        axes, inputs = _text_inputs(self.config)
        return Signature(
            task=self.config.task, axes={"batch": BATCH, **axes}, stage=Stage(inputs=inputs, outputs=(logits,))
        )

    @property
    def stages(self) -> dict[StageName, Signature]:
        """The decoder takes the positions to answer, and their part of the inputs where the queries depend on them."""
        assert isinstance(self.config.input, TextInput)
        full = self.signature
        shape = ("batch", "queries")
        queries = [
            TensorSpec(
                name="positions", dtype="int64", shape=("queries",), minimum=0, maximum=self.config.input.max_length - 1
            )
        ]
        if self.masks_queries:
            queries.append(mask_spec(*shape))
        if self.decoder.queries is None:
            queries.append(full.stage.inputs[0].model_copy(update={"shape": shape}))
        (logits,) = full.stage.outputs
        return split_signature(
            full,
            self.config,
            data=["input_ids", "attention_mask"],
            queries=tuple(queries),
            outputs=(logits.model_copy(update={"shape": (*shape, logits.shape[-1])}),),
            axes={"queries": Axis(opt=full.axes["length"].opt)},
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` [batch, length] to `logits` [batch, length, vocab]."""
        tokens = self.input_adapter(input_ids)
        latents = self.encoder(tokens, attention_mask)
        queries = tokens if self.decoder.queries is None else self.decoder.queries.narrow(0, 0, input_ids.shape[1])
        return self._answer(latents, queries, attention_mask if self.masks_queries else None)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` to `latents`."""
        return {"latents": self.encoder(self.input_adapter(input_ids), attention_mask)}

    def decode(
        self,
        latents: Tensor,
        positions: Tensor,
        attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """`latents` to `logits` [batch, queries, vocab] at the `positions` [queries] of the text.

        `attention_mask` and `input_ids` [batch, queries] are what stands there, where the signature asks for them.
        """
        if self.decoder.queries is None:
            queries = self.input_adapter(input_ids, positions)
        else:
            queries = self.decoder.queries.index_select(0, positions)
        return self._answer(latents, queries, attention_mask)

    def _answer(self, latents: Tensor, queries: Tensor, query_mask: Tensor | None) -> dict[str, Tensor]:
        decoded = self.decoder(latents, queries, query_mask)
        if self.output_bias is None:
            return {"logits": decoded}
        return {"logits": decoded @ self.input_adapter.embeddings.weight.T + self.output_bias}


def _check_language_decoder(text: TextInput, decoder: DecoderConfig) -> None:
    """Refuse a decoder that does not answer at every position with every token."""
    if decoder.num_queries is not None and decoder.num_queries < text.max_length:
        raise ValueError(f"decoder.num_queries {decoder.num_queries} is less than input.max_length {text.max_length}")
    if decoder.output_channels not in (None, text.vocab_size):
        raise ValueError(
            f"decoder.output_channels {decoder.output_channels} is neither null nor input.vocab_size {text.vocab_size}"
        )
    uses_embeddings = decoder.num_queries is None or decoder.output_channels is None
    if uses_embeddings and decoder.query_channels != text.channels:
        raise ValueError(
            f"decoder.query_channels {decoder.query_channels} is not input.channels {text.channels}: embeddings serve "
            "as queries (num_queries null) or as output weights (output_channels null)"
        )


class TextClassifier(Classifier):
    """Bytes to class logits."""

    def __init__(self, config: PerceiverConfig) -> None:
        assert isinstance(config.input, TextInput)
        super().__init__(config, TextInputAdapter(config.input, config.initializer_range), config.input.channels)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        axes, inputs = _text_inputs(self.config)
        return classifier_signature(self.config, axes, *inputs)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` [batch, length] to `logits` [batch, classes]."""
        return self.decode(**self.encode(input_ids, attention_mask))

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` to `latents`."""
        return {"latents": self.encoder(self.input_adapter(input_ids), attention_mask)}


class MultitaskTextModel(nn.Module):
    """Bytes to the class logits of several tasks: one trainable query per task, answered from one encoding.

    Source: Perceiver IO, section 4.1 (GLUE with multitask queries).
    """

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        assert isinstance(config.input, TextInput)
        assert isinstance(config.decoder, DecoderConfig)
        if config.decoder.num_queries is None:
            raise ValueError("task 'multitask_text' needs decoder.num_queries, one per task")
        self.config = config
        self.num_tasks = config.decoder.num_queries
        self.input_adapter = TextInputAdapter(config.input, config.initializer_range)
        self.encoder = PerceiverEncoder(config, self.input_adapter.channels)
        self.decoder = PerceiverDecoder(config, config.decoder)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        axes, inputs = _text_inputs(self.config)
        axes |= {"batch": BATCH, "queries": Axis(opt=self.num_tasks)}
        tasks = TensorSpec(name="task_ids", dtype="int64", shape=("queries",), minimum=0, maximum=self.num_tasks - 1)
        logits = TensorSpec(name="logits", dtype="float32", shape=("batch", "queries", classes(self.config)))
        return Signature(task=self.config.task, axes=axes, stage=Stage(inputs=(*inputs, tasks), outputs=(logits,)))

    @property
    def stages(self) -> dict[StageName, Signature]:
        """The decoder takes the tasks."""
        full = self.signature
        tasks = full.stage.inputs[-1:]
        return split_signature(full, self.config, data=["input_ids", "attention_mask"], queries=tasks)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, task_ids: Tensor) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` [batch, length], `task_ids` [queries] to `logits` [batch, queries, classes]."""
        return self.decode(**self.encode(input_ids, attention_mask), task_ids=task_ids)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` to `latents`."""
        return {"latents": self.encoder(self.input_adapter(input_ids), attention_mask)}

    def decode(self, latents: Tensor, task_ids: Tensor) -> dict[str, Tensor]:
        """`latents`, `task_ids` to `logits`."""
        assert self.decoder.queries is not None
        return {"logits": self.decoder(latents, self.decoder.queries[task_ids])}


def _text_inputs(config: PerceiverConfig) -> tuple[dict[str, Axis], tuple[TensorSpec, TensorSpec]]:
    """The axis `length`, and tokens with their mask."""
    assert isinstance(config.input, TextInput)
    length = Axis(opt=min(_OPT_LENGTH, config.input.max_length), max=config.input.max_length)
    tokens = TensorSpec(
        name="input_ids", dtype="int64", shape=("batch", "length"), minimum=0, maximum=config.input.vocab_size - 1
    )
    return {"length": length}, (tokens, mask_spec("batch", "length"))
