"""The task metric of a worker on a labelled split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.data.datasets import Split
from perceiver_deploy.data.metrics import top1_accuracy, wilson_interval
from perceiver_deploy.evaluate.parity import compare
from perceiver_deploy.evaluate.workers import Worker

_BATCH = 32


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy with its 95 % interval, and agreement with eager on the same rows."""

    accuracy: float
    interval: tuple[float, float]
    examples: int
    agreement: float
    relative_l2: float

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def predict(worker: Worker, data: Split, output: str) -> NDArray[np.generic]:
    """One output for a whole split, in batches."""
    parts = [worker.run(data.rows(slice(start, start + _BATCH)))[output] for start in range(0, len(data), _BATCH)]
    return np.concatenate(parts)


def measure_accuracy(logits: NDArray[Any], eager: NDArray[Any], data: Split) -> Accuracy:
    """Accuracy of logits [examples, classes], and how they compare with eager's."""
    share = top1_accuracy(logits, data.targets)
    figures = compare(logits, eager)
    return Accuracy(
        accuracy=share,
        interval=wilson_interval(share, len(data)),
        examples=len(data),
        agreement=float((logits.argmax(-1) == eager.argmax(-1)).mean()),
        relative_l2=figures.relative_l2,
    )
