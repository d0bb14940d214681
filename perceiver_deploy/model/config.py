"""Configuration of a Perceiver IO as dataclasses, written to and read from `config.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from perceiver_deploy.bundle.manifest import Task
from perceiver_deploy.bundle.preprocessing import Preprocessing
from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.inputs.catalogue import Input
from perceiver_deploy.model.inputs.label import LabelInput
from perceiver_deploy.model.inputs.multimodal import MultimodalInput
from perceiver_deploy.strict import first_problem

FORMAT = "perceiver-deploy"
FORMAT_VERSION = 1
_FORBID_EXTRA = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class AttentionConfig:
    """One attention layer with its MLP. None takes the published default.

    `qk_channels`: channels of the key/value input (cross-attention) or of the latents (self-attention).
    `v_channels`: as many as `qk_channels`. `widening_factor` 0: no MLP. `qkv_bias`: whether query, key and value are
    projected with a bias.
    """

    __pydantic_config__ = _FORBID_EXTRA
    num_heads: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    widening_factor: NonNegativeInt = 1
    use_query_residual: bool = True
    qkv_bias: bool = True


Sharing = Literal["all", "from_second", "none"]
"""Which repetitions of a layer share weights: all, all but the first, or none."""


@dataclass(frozen=True)
class EncoderConfig:
    """Latents in `num_blocks` blocks of self-attention, the first ones each behind a cross-attention to the inputs.

    Perceiver IO has one cross-attention and shares the weights of all blocks; Perceiver has several, and shares their
    weights from the second on.
    """

    __pydantic_config__ = _FORBID_EXTRA
    num_latents: PositiveInt
    d_latents: PositiveInt
    num_blocks: PositiveInt
    num_self_attends_per_block: PositiveInt
    cross_attention: AttentionConfig
    self_attention: AttentionConfig
    num_cross_attentions: int = 1
    cross_attention_sharing: Sharing = "from_second"
    block_sharing: Sharing = "all"

    def __post_init__(self) -> None:
        if not 1 <= self.num_cross_attentions <= self.num_blocks:
            raise ValueError(f"num_cross_attentions {self.num_cross_attentions} for num_blocks {self.num_blocks}")


@dataclass(frozen=True)
class DecoderConfig:
    """Queries attend to the latents once, then a projection unless `output_channels` is None.

    `num_queries` trainable queries, or None where the task makes queries of other things. `label_query_channels`:
    channels of the trainable query of the label in multimodal autoencoding.
    """

    __pydantic_config__ = _FORBID_EXTRA
    num_queries: int | None
    query_channels: int
    cross_attention: AttentionConfig
    output_channels: int | None
    label_query_channels: int = 1024
    kind: Literal["query"] = "query"


@dataclass(frozen=True)
class MeanDecoderConfig:
    """The mean of the latents, normed where `norm` says so, projected: how Perceiver classifies."""

    __pydantic_config__ = _FORBID_EXTRA
    output_channels: int
    norm: bool = False
    kind: Literal["mean"] = "mean"


@dataclass(frozen=True)
class Semantics:
    """Where published implementations differ.

    `activation`: exact GELU (Hugging Face) or its tanh approximation (DeepMind); "geglu" is the exact GELU of one half
    of the channels times the other half, of an MLP twice as wide before it (lucidrains).
    `fully_masked_rows`: attention over inputs that are all masked gives "zeros" (DeepMind) or the "mean" of the
    values (Hugging Face, whose additive mask cancels in the softmax).
    `masked_queries`: where a masked language model's input is masked, the decoder's attention gives "zeros" (DeepMind),
    or the query will "attend" to the latents like any other (Hugging Face).
    """

    __pydantic_config__ = _FORBID_EXTRA
    activation: Literal["gelu", "gelu_tanh", "relu", "geglu"] = "gelu_tanh"
    fully_masked_rows: Literal["zeros", "mean"] = "zeros"
    masked_queries: Literal["zeros", "attend"] = "zeros"
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True)
class PerceiverConfig:
    """Everything needed to build a model but its weights, and what a user needs around it (labels, preprocessing).

    `task_labels`: of a model of several tasks, their names in the order of its queries with the labels of each.
    """

    __pydantic_config__ = _FORBID_EXTRA
    task: Task
    input: Input
    encoder: EncoderConfig
    decoder: Annotated[DecoderConfig | MeanDecoderConfig, Field(discriminator="kind")]
    semantics: Semantics = field(default_factory=Semantics)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    initializer_range: float = 0.02
    labels: tuple[str, ...] | None = None
    task_labels: dict[str, tuple[str, ...]] | None = None
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        if self.input.kind not in _INPUT_KINDS[self.task]:
            raise ValueError(
                f"task {self.task!r} takes {' or '.join(_INPUT_KINDS[self.task])} input, not {self.input.kind!r}"
            )
        if isinstance(self.decoder, MeanDecoderConfig) and not self.task.endswith("_classification"):
            raise ValueError(f"task {self.task!r} needs a decoder with queries, not the mean of the latents")
        if self.labels is not None and len(self.labels) != self.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.num_classes} outputs")
        if self.task_labels is not None:
            self._check_task_labels(self.task_labels)

    def _check_task_labels(self, task_labels: dict[str, tuple[str, ...]]) -> None:
        """Refuse tasks that are not as many as queries, or have more classes than there are outputs."""
        queries = self.decoder.num_queries if isinstance(self.decoder, DecoderConfig) else None
        if self.task != "multitask_text" or len(task_labels) != queries:
            raise ValueError(f"task_labels of {len(task_labels)} tasks for {queries} queries of task {self.task!r}")
        for name, labels in task_labels.items():
            if not 0 < len(labels) <= (self.num_classes or 0):
                raise ValueError(f"task_labels {name!r} has {len(labels)} labels for {self.num_classes} outputs")

    @property
    def num_classes(self) -> int | None:
        """Classes that the model tells apart, or None where it does not classify."""
        if isinstance(self.input, MultimodalInput) and self.task == "multimodal_autoencoding":
            label = self.input.modalities.get("label")
            return label.classes if isinstance(label, LabelInput) else None
        return self.decoder.output_channels

    def to_json(self) -> str:
        """Text of `config.json`, ending in a newline."""
        document = {"format": FORMAT, "format_version": FORMAT_VERSION, **_ADAPTER.dump_python(self, mode="json")}
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_document(cls, document: dict[str, Any], where: str) -> PerceiverConfig:
        """Build from the parsed `config.json`.

        Raises:
            CheckpointError: a newer format version, or a field that is missing, unknown or of the wrong kind.
        """
        document = dict(document)
        document.pop("format", None)
        version = document.pop("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{where} has format_version {version}; this perceiver-deploy reads {FORMAT_VERSION}. Upgrade it."
            )
        try:
            return _ADAPTER.validate_python(document)
        except ValidationError as error:
            raise CheckpointError(
                f"{where} is not a Perceiver configuration: {first_problem(error, 'configuration')}."
            ) from None


_INPUT_KINDS: dict[Task, tuple[str, ...]] = {
    "masked_lm": ("text",),
    "text_classification": ("text",),
    "multitask_text": ("text",),
    "image_classification": ("image",),
    "optical_flow": ("flow",),
    "multimodal_autoencoding": ("multimodal",),
    "audio_classification": ("audio",),
    "video_classification": ("video",),
    "audiovisual_classification": ("multimodal",),
    "point_cloud_classification": ("points",),
    "entities": ("entities",),
    "tokens": ("tokens",),
}
_ADAPTER = TypeAdapter(PerceiverConfig)
