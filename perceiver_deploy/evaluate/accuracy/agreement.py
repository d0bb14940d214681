"""What needs no labels: how far outputs agree with eager's on the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.metrics import Metric, has_classes
from perceiver_deploy.data.split import Split
from perceiver_deploy.evaluate.accuracy.losses import Loss, measure_losses
from perceiver_deploy.evaluate.parity.verdicts import compare

LEAST_SQNR_DB = 20.0
"""Signal to quantisation noise of an output against eager's, in dB: a relative L2 error of 0.1."""
_MOST_DB = 300.0
"""For an error of zero, which has no number in JSON."""


@dataclass(frozen=True)
class Sqnr:
    """Signal to noise of class scores against eager's, and the least that is allowed, which is part of any contract.

    Equal answers alone say nothing of scores that are scaled, or of those of the other classes.
    """

    output: str
    sqnr_db: float
    least_db: float = LEAST_SQNR_DB

    @property
    def excess(self) -> float:
        """By how much the relative L2 error is beyond that of the least SQNR."""
        return float(10 ** (-self.sqnr_db / 20) - 10 ** (-self.least_db / 20))

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)

    def text(self) -> str:
        """`SQNR of logits against eager 31.2 dB (at least 20 dB for any max-drop)`."""
        least = f"at least {self.least_db:g} dB for any max-drop"
        return f"SQNR of {self.output} against eager {self.sqnr_db:.1f} dB ({least})"


def judge_outputs(
    outputs: Arrays, eager: Arrays, data: Split, metrics: Sequence[Metric] | None
) -> tuple[Loss | Sqnr, ...]:
    """What the metrics of a split lost; without any, what of agreement with eager, and the SQNR of class scores."""
    if metrics is not None:
        return measure_losses(outputs, eager, data, metrics)
    drops = measure_losses(outputs, eager, data, agreement_metrics(eager))
    inputs = data.rows(slice(None))
    sqnrs = (
        Sqnr(name, measure_sqnr(outputs[name][counted], wanted[counted]))
        for name, wanted in eager.items()
        if has_classes(name)
        for counted in [_counted(inputs, wanted.shape[:-1])]
    )
    return (*drops, *sqnrs)


def measure_sqnr(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Signal to noise in dB where `wanted` is finite, from -300 (no numbers, or no signal) to 300 (no error)."""
    finite = np.isfinite(wanted)
    return float(np.clip(compare(found[finite], wanted[finite]).sqnr_db, -_MOST_DB, _MOST_DB))


def agreement_metrics(eager: Arrays) -> tuple[Metric, ...]:
    """One metric an output: each is 1 for eager itself, so that what is lost is what differs.

    For `logits` it is the share of an example's answers that are the same; top-1 accuracy cannot fall by more than that
    share of answers. For other outputs it is 1 - relative L2 error of an example: 0.99 is an SQNR of 40 dB.
    """
    return tuple(_same_answers(name, eager) if has_classes(name) else _fidelity(name, eager) for name in eager)


def _same_answers(name: str, eager: Arrays) -> Metric:
    wanted = eager[name].argmax(-1)

    def scores(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
        same = outputs[name].argmax(-1) == wanted
        counted = _counted(inputs, same.shape)
        same, counted = (array.reshape(len(array), -1) for array in (same & counted, counted))
        return same.sum(1) / np.where(counted.any(1), counted.sum(1), np.nan)

    return Metric(f"same top-1 of {name} as eager", "%", True, scores)


def _counted(inputs: Arrays, answers: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which answers count: not those at masked positions."""
    mask = inputs.get("attention_mask")
    if mask is None or mask.shape != answers or len(answers) < 2:
        return np.ones(answers, np.bool_)
    return np.asarray(mask != 0)


def _fidelity(name: str, eager: Arrays) -> Metric:
    wanted = eager[name].astype(np.float64).reshape(len(eager[name]), -1)
    norm = np.linalg.norm(wanted, axis=1)

    def scores(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
        error = np.linalg.norm(outputs[name].astype(np.float64).reshape(wanted.shape) - wanted, axis=1)
        relative = np.divide(error, norm, out=np.where(error > 0, np.inf, 0.0), where=norm > 0)
        return np.asarray(1 - relative, np.float64)

    return Metric(f"1 - relative L2 of {name} against eager", "%", True, scores)
