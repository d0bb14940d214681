"""Metrics that need no labels: how far outputs agree with eager's on the same inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.metrics import Metric

_CLASSES = "logits"
"""What the names of outputs end with whose largest entry is an answer."""


def agreement_metrics(eager: Arrays) -> tuple[Metric, ...]:
    """One metric an output: each is 1 for eager itself, so that what is lost is what differs.

    For `logits` it is the share of an example's answers that are the same; top-1 accuracy cannot fall by more than that
    share of answers. For other outputs it is 1 - relative L2 error of an example: 0.99 is an SQNR of 40 dB.
    """
    return tuple(_same_answers(name, eager) if name.endswith(_CLASSES) else _fidelity(name, eager) for name in eager)


def _same_answers(name: str, eager: Arrays) -> Metric:
    wanted = eager[name].argmax(-1)

    def scores(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
        same = outputs[name].argmax(-1) == wanted
        counted = np.ones_like(same)
        if (mask := inputs.get("attention_mask")) is not None and mask.shape == same.shape and same.ndim > 1:
            counted = mask != 0
        same, counted = (array.reshape(len(array), -1) for array in (same & counted, counted))
        return same.sum(1) / np.where(counted.any(1), counted.sum(1), np.nan)

    return Metric(f"same top-1 of {name} as eager", "%", True, scores)


def _fidelity(name: str, eager: Arrays) -> Metric:
    wanted = eager[name].astype(np.float64).reshape(len(eager[name]), -1)
    norm = np.linalg.norm(wanted, axis=1)

    def scores(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
        error = np.linalg.norm(outputs[name].astype(np.float64).reshape(wanted.shape) - wanted, axis=1)
        relative = np.divide(error, norm, out=np.where(error > 0, np.inf, 0.0), where=norm > 0)
        return np.asarray(1 - relative, np.float64)

    return Metric(f"1 - relative L2 of {name} against eager", "%", True, scores)
