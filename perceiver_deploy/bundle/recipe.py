"""What a manifest says of how a variant was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


def summarize_reasons(reasons: Mapping[str, str]) -> str:
    """How many there are of each kind, most frequent first; a reason is `KIND` or `KIND: DETAIL`."""
    kinds = Counter(reason.partition(":")[0] for reason in reasons.values())
    return ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
