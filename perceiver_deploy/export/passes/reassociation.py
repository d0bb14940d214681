"""Project the small side of each attention, which few latents and many inputs allow."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from perceiver_deploy.export.attention import plans, rewrites
from perceiver_deploy.export.attention.match import find_attentions, is_learned
from perceiver_deploy.export.attention.rewrites import ProjectedAttention
from perceiver_deploy.export.graph.flops import shape_at

_SCORES = {
    plans.KEYS_UNPROJECTED: rewrites.unproject_keys,
    plans.QUERIES_UNPROJECTED: rewrites.unproject_queries,
}
_VALUES = {
    plans.LATE_VALUES: rewrites.project_values_late,
    plans.EARLY_OUTPUT: rewrites.project_output_early,
}


def reassociate(model: ir.Model, sizes: Mapping[str, int]) -> dict[str, int]:
    """Change the order of an attention's products where that costs less at these sizes of the axes.

    The key's bias adds the same to all scores of a query, which softmax ignores, so it goes; the value's bias passes
    through softmax, whose rows sum to 1; factors that make rows zero stay between it and the output's bias.

    Requires: weights as MatMul reads them; shapes that name axes. Ensures: the same function, in exact arithmetic;
    attentions that share keys or values still do. Leaves nodes that nothing reads. Returns how many attentions were
    changed, by the way they are associated now.
    """
    attentions = [whole for found in find_attentions(model) if (whole := ProjectedAttention.of(found)) is not None]
    by_key: dict[ir.Value, list[ProjectedAttention]] = {}
    by_value: dict[ir.Value, list[ProjectedAttention]] = {}
    for attention in attentions:
        by_key.setdefault(attention.key.result, []).append(attention)
        by_value.setdefault(attention.value.result, []).append(attention)
    counts = dict.fromkeys([*_SCORES, *_VALUES], 0)
    for groups, costs, ways in ((by_key, plans.score_costs, _SCORES), (by_value, plans.value_costs, _VALUES)):
        for group in groups.values():
            way = plans.cheapest([costs(_sizes(attention, sizes)) for attention in group])
            if way in ways:
                counts[way] += len(group)
                for attention in group:
                    ways[way](attention)
    return counts


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
