"""Project the small side of each attention, which few latents and many inputs allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from perceiver_deploy.export.attention import plans, rewrites
from perceiver_deploy.export.attention.match import find_attentions, is_learned
from perceiver_deploy.export.attention.rewrites import ProjectedAttention
from perceiver_deploy.export.graph.flops import shape_at
from perceiver_deploy.export.passes.base import PassByWay
from perceiver_deploy.export.passes.forms import require_shapes, require_weights_as_read

_WAYS: dict[str, Callable[[ProjectedAttention], None]] = {
    plans.KEYS_UNPROJECTED: rewrites.unproject_keys,
    plans.QUERIES_UNPROJECTED: rewrites.unproject_queries,
    plans.LATE_VALUES: rewrites.project_values_late,
    plans.EARLY_OUTPUT: rewrites.project_output_early,
}


class Reassociate(PassByWay):
    """Change the order of an attention's products where that costs less at these sizes of the axes.

    The key's bias adds the same to all scores of a query, which softmax ignores, so it goes; the value's bias passes
    through softmax, whose rows sum to 1; factors that make rows zero stay between it and the output's bias. Attentions
    that share keys or values still do.
    """

    name = "products reassociated"

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes

    def requires(self, model: ir.Model) -> None:
        """Types and shapes, which name axes that have a size; weights as MatMul reads them."""
        require_shapes(model)
        require_weights_as_read(model)

    def run_by_way(self, model: ir.Model) -> dict[str, int]:
        """Returns how many attentions were changed, by the way they are associated now."""
        counts = dict.fromkeys(_WAYS, 0)
        for way, group in self._cheaper(model):
            counts[way] += len(group)
            for attention in group:
                _WAYS[way](attention)
        return counts

    def ensures(self, model: ir.Model) -> None:
        """No attention is left that another order of its products makes cheaper."""
        for way, group in self._cheaper(model):
            modules = [attention.found.module for attention in group]
            raise ir.passes.PostconditionError(f"{modules} would cost less with {way}.")

    def _cheaper(self, model: ir.Model) -> list[tuple[str, list[ProjectedAttention]]]:
        """Attentions that share a projection, with the way that costs less than theirs; scores before values."""
        attentions = [whole for found in find_attentions(model) if (whole := ProjectedAttention.of(found)) is not None]
        by_key: dict[ir.Value, list[ProjectedAttention]] = {}
        by_value: dict[ir.Value, list[ProjectedAttention]] = {}
        for attention in attentions:
            by_key.setdefault(attention.key.result, []).append(attention)
            by_value.setdefault(attention.value.result, []).append(attention)
        cheaper = []
        for groups, costs in ((by_key, plans.score_costs), (by_value, plans.value_costs)):
            for group in groups.values():
                way = plans.cheapest([costs(_sizes(attention, self._sizes)) for attention in group])
                if way != plans.AS_IT_WAS:
                    cheaper.append((way, group))
        return cheaper


def _sizes(attention: ProjectedAttention, sizes: Mapping[str, int]) -> plans.AttentionSizes:
    _, heads, queries, tokens = shape_at(attention.found.scores.outputs[0], sizes)
    return plans.AttentionSizes(
        heads=heads,
        queries=queries,
        tokens=tokens,
        q_channels=shape_at(attention.query.source, sizes)[-1],
        kv_channels=shape_at(attention.key.source, sizes)[-1],
        qk_channels=shape_at(attention.key.result, sizes)[-1],
        v_channels=shape_at(attention.value.result, sizes)[-1],
        out_channels=shape_at(attention.output.result, sizes)[-1],
        stored_query=is_learned(attention.query.source),
    )
