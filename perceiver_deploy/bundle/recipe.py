"""What a manifest says of how a variant was made, and what its graphs consist of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class _Record(BaseModel):
    """Facts, of which those that are read have a type. Others are kept; what is not stated stays unstated."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_serializer(mode="wrap")
    def _as_stated(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if name in self.model_fields_set}


class ModuleRecord(_Record):
    """A module of a graph at the `opt` sizes of the axes: its operations and the bytes of its weights."""

    module: str
    flops: int
    weight_bytes: int


class AttentionRecord(_Record):
    """Attentions of one form: how many, and by engine whether it fuses them ("fused") or why it does not."""

    module: str
    count: int
    fuses: dict[str, str]


class GraphRecord(_Record):
    """A graph: operators by name, operations at the `opt` sizes, and how often each rewrite fired.

    `kept` has the nodes that stay in a higher precision than the variant's, each with the reason, `KIND` or
    `KIND: DETAIL`; `saturation` is what can overflow in INT8.
    """

    operators: dict[str, int] = {}
    flops: int | None = None
    rewrites: dict[str, int] = {}
    modules: tuple[ModuleRecord, ...] = ()
    attentions: tuple[AttentionRecord, ...] = ()
    kept: dict[str, str] = {}
    saturation: dict[str, Any] | None = None


class VariantRecipe(_Record):
    """How a variant was made: its graphs by stage, and the accuracy contract where there was one."""

    graphs: dict[str, GraphRecord] = {}
    contract: Any = None

    def graph(self, stage: str) -> GraphRecord:
        """The record of a stage's graph; an empty one where the recipe does not say."""
        return self.graphs.get(stage, GraphRecord())


def summarize_reasons(reasons: Mapping[str, str]) -> str:
    """How many there are of each kind, most frequent first; a reason is `KIND` or `KIND: DETAIL`."""
    kinds = Counter(reason.partition(":")[0] for reason in reasons.values())
    return ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
