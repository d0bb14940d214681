"""Numeric parity: figures that compare outputs, the bounds they are held to, and the verdicts.

fp32 is held to 10 times the error that eager float32 itself has against float64 (at least 1e-6), fp16 and bf16 to that
error with the roundings of their own. The bounds of reduced precision only catch broken graphs; their real judge is the
task metric. The worst row has a bound of its own, so
that one that is wrong cannot hide among many that are right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.metrics import has_classes
from perceiver_deploy.errors import PerceiverDeployError
from perceiver_deploy.evaluate.grid import OUT_OF_RANGE
from perceiver_deploy.evaluate.samples import Sample
from perceiver_deploy.manifest import Precision
from perceiver_deploy.runtimes.queries import answer_queries
from perceiver_deploy.runtimes.session import Session

Stages = Literal["full", "encoder + decoder"]
EAGER_FACTOR = 10
FP32_FLOOR = 1e-6
BOUNDS: dict[Precision, float] = {"fp16": 1e-2, "bf16": 8e-2, "int8": 5e-1}
"""Bounds on relative L2 of the reduced precisions. A graph that is wired wrongly is off by 1 or more.

fp16 and bf16: 20 unit roundoffs (2^-11 and 2^-8). Each rounding is off by up to one, 0.4 in the mean square, and
independent ones add up as the root of their number: 20 are about 2,000 roundings one after the other, which 48 layers
of a dozen operations each, with weights that are rounded too, do not reach. Small models of every task are within 11.
An output that is small because large terms cancel, such as the near silence of an autoencoder, loses more in every
precision, and eager float32 shows how much more: see `COARSER`.
INT8: on noise outside its calibrated ranges, which the grid holds, it is off by up to 0.4.
"""
COARSER: dict[Precision, int] = {"fp16": 2**13, "bf16": 2**16}
"""How many times larger than float32's the roundings are. Shipped models in fp16 and bf16 are off by 0.03 to 1.2 times
this much of eager float32's error."""
BROKEN = 0.5
"""No bound on relative L2 is above it."""
ROW_FACTOR, LOST_ROW, UNRELATED_ROW = 5, 0.9, 1.2
"""The worst row's bound in fp16 and bf16: 5 times that of all, and below 1, which a row that is lost is off by; in INT8
below 1.4, which a row of unrelated values is off by.

In fp16 and bf16 the worst row of a shipped model was off by at most 7.8 times what all were where that was far below
the bound. In INT8, on noise outside the calibrated ranges, by 0.98 (optical flow).
"""
TOLERANCES: dict[Precision, str] = {
    "fp32": f"{EAGER_FACTOR} x the error of eager float32 on the same inputs, at least {FP32_FLOOR:g}; so too for the "
    "worst row: another order of the same float32 operations is off by a few times as much, a wrong graph by far more",
    "fp16": f"{BOUNDS['fp16']:g}, 20 roundings of 2^-11, or 2^13 x the error of eager float32 where that is more; "
    f"the worst row {ROW_FACTOR} x as much",
    "bf16": f"{BOUNDS['bf16']:g}, 20 roundings of 2^-8, or 2^16 x the error of eager float32 where that is more; "
    f"the worst row {ROW_FACTOR} x as much",
    "int8": f"{BOUNDS['int8']:g}, above what noise outside the calibrated ranges takes and below what a wrong graph is "
    f"off by; the worst row {UNRELATED_ROW:g}; of values that are out of range by far only that outputs are finite",
}
"""What each precision is held to on relative L2, and why."""


@dataclass(frozen=True)
class Figures:
    """How an output differs from the reference. A row is what lies along the last axis: the logits of one token.

    `top1` is the share of rows with the same largest entry. `worst_row` is the largest error of a row, over its norm or
    the root mean square of all rows' norms where that is more: of a row near zero no relative error can be asked.
    """

    max_abs: float
    relative_l2: float
    worst_row: float
    cosine: float
    sqnr_db: float
    top1: float | None
    non_finite: int

    def to_json(self) -> dict[str, float | None]:
        """A plain dict. What is not finite is None: JSON has no word for it."""
        return {name: finite_or_none(value) for name, value in asdict(self).items()}


_NO_FIGURES = Figures(np.inf, np.inf, np.inf, 0.0, -np.inf, None, 0)


@dataclass(frozen=True)
class Verdict:
    """One output of one candidate at one case, and the bounds on its relative L2 and on that of its worst row.

    `error` is why it did not run.
    """

    runtime: str
    variant: str
    precision: Precision
    case: str
    sizes: str
    output: str
    figures: Figures
    bound: float
    row_bound: float
    bound_reason: str
    error: str | None = None
    stages: Stages = "full"

    @property
    def passed(self) -> bool:
        """A NaN never passes."""
        return (
            self.error is None
            and self.figures.non_finite == 0
            and self.figures.relative_l2 <= self.bound
            and self.figures.worst_row <= self.row_bound
        )

    @property
    def excess(self) -> float:
        """How many times its bound the error is, of all or of the worst row; infinite without finite outputs."""
        if self.error is not None or self.figures.non_finite:
            return math.inf
        return max(self.figures.relative_l2 / self.bound, self.figures.worst_row / self.row_bound)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, `passed` included."""
        bounds = {"bound": finite_or_none(self.bound), "row_bound": finite_or_none(self.row_bound)}
        return {**asdict(self), "figures": self.figures.to_json(), **bounds, "passed": self.passed}


@dataclass(frozen=True)
class Candidate:
    """A session to be judged, with the variant it runs: by its stage `full`, or by encoding and decoding.

    The latter decodes the queries in two chunks, so that each is known to be answered independently of the others.
    """

    session: Session
    variant: str
    precision: Precision
    stages: Stages = "full"

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs of the stage `full`."""
        if self.stages == "full":
            return self.session.run(inputs)
        return answer_queries(self.session, inputs, lambda count: -(-count // 2))


def candidates_of(session: Session, variant: str, precision: Precision) -> list[Candidate]:
    """The ways that the stages of a session can be run."""
    ways: list[Stages] = []
    if "full" in session.stages:
        ways.append("full")
    if "decoder" in session.stages:
        ways.append("encoder + decoder")
    return [Candidate(session, variant, precision, way) for way in ways]


def finite_or_none(value: float | None) -> float | None:
    """A number that JSON has a word for: what is not finite is None."""
    return value if value is not None and math.isfinite(value) else None


def compare(result: NDArray[Any], reference: NDArray[Any]) -> Figures:
    """Figures of `result` against `reference`, computed in float64.

    Raises:
        ValueError: the shapes differ.
    """
    if result.shape != reference.shape:
        raise ValueError(f"shape {result.shape} cannot be compared with {reference.shape}")
    found, wanted = result.astype(np.float64), reference.astype(np.float64)
    non_finite = int(np.count_nonzero(~np.isfinite(found)))
    if non_finite:
        return Figures(np.inf, np.inf, np.inf, 0.0, -np.inf, None, non_finite)
    norm, error = float(np.linalg.norm(wanted)), float(np.linalg.norm(found - wanted))
    product = norm * float(np.linalg.norm(found))
    return Figures(
        max_abs=float(np.abs(found - wanted).max(initial=0)),
        relative_l2=error / norm if norm else error,
        worst_row=_worst_row(found, wanted),
        cosine=float(np.vdot(found, wanted)) / product if product else float(error == 0),
        sqnr_db=_decibels(norm, error),
        top1=float((found.argmax(-1) == wanted.argmax(-1)).mean()) if found.ndim > 1 and found.shape[-1] > 1 else None,
        non_finite=0,
    )


def _decibels(norm: float, error: float) -> float:
    if not error:
        return math.inf
    return 20 * math.log10(norm / error) if norm else -math.inf


def _worst_row(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    if found.ndim < 2 or not found.size:
        found, wanted = found.reshape(1, -1), wanted.reshape(1, -1)
    errors, norms = np.linalg.norm(found - wanted, axis=-1), np.linalg.norm(wanted, axis=-1)
    typical = float(np.sqrt(np.square(norms).mean()))
    return float((errors / (np.maximum(norms, typical) if typical else 1.0)).max())


def judge(candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
    """Run every candidate on a sample and hold its outputs to their bounds. One that fails to run has not passed."""
    verdicts = []
    for candidate in candidates:
        outputs, error = dict[str, NDArray[Any]](), None
        try:
            outputs = candidate.run(sample.inputs)
            for name, reference in sample.float64.items():
                if outputs[name].shape != reference.shape:
                    error = f"{name} has shape {outputs[name].shape}, expected {reference.shape}"
        except PerceiverDeployError as problem:
            error = str(problem)
        for name, reference in sample.float64.items():
            bound, row_bound, reason = _bounds(candidate.precision, sample, name)
            verdicts.append(
                Verdict(
                    runtime=candidate.session.runtime,
                    variant=candidate.variant,
                    precision=candidate.precision,
                    case=sample.name,
                    sizes=", ".join(f"{key} {list(array.shape)}" for key, array in sample.inputs.items()),
                    output=name,
                    figures=_figures(name, outputs[name], reference) if error is None else _NO_FIGURES,
                    bound=bound,
                    row_bound=row_bound,
                    bound_reason=reason,
                    error=error,
                    stages=candidate.stages,
                )
            )
    return verdicts


def _figures(output: str, result: NDArray[Any], reference: NDArray[Any]) -> Figures:
    found = compare(result, reference)
    return found if has_classes(output) else replace(found, top1=None)


def _bounds(precision: Precision, sample: Sample, output: str) -> tuple[float, float, str]:
    """Bounds on relative L2 of all and of the worst row, and their reason."""
    if precision == "int8" and sample.name == OUT_OF_RANGE:
        return math.inf, math.inf, "int8 clips what is beyond its calibrated ranges"
    eager = compare(sample.float32[output], sample.float64[output])
    bound, reason = error_bound(precision, eager.relative_l2)
    if precision == "fp32":
        return bound, max(bound, error_bound(precision, eager.worst_row)[0]), reason
    return bound, UNRELATED_ROW if precision == "int8" else min(ROW_FACTOR * bound, LOST_ROW), reason


def error_bound(precision: Precision, eager_error: float) -> tuple[float, str]:
    """The bound on relative L2, and its reason; `eager_error` is that of eager float32 on the same inputs."""
    if precision != "fp32":
        scaled = COARSER.get(precision, 0) * eager_error
        if math.isfinite(scaled) and scaled > BOUNDS[precision]:
            return min(scaled, BROKEN), f"{COARSER[precision]} x eager float32's own {eager_error:.1e}"
        return BOUNDS[precision], f"stated for {precision}"
    if not math.isfinite(eager_error) or EAGER_FACTOR * eager_error <= FP32_FLOOR:
        return FP32_FLOOR, "floor for fp32"
    return EAGER_FACTOR * eager_error, f"{EAGER_FACTOR} x eager float32's own {eager_error:.1e}"


def failure_text(verdicts: Sequence[Verdict]) -> str:
    """One paragraph on the worst of the failures."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    worst = max(failed, key=lambda verdict: verdict.excess)
    figures = worst.figures
    way = "" if worst.stages == "full" else f" ({worst.stages})"
    where = (
        f"Parity failed in {len(failed)} of {len(verdicts)} comparisons. Worst: output {worst.output!r} of variant "
        f"{worst.variant}{way} in {worst.runtime} at case {worst.case!r} ({worst.sizes})"
    )
    if worst.error is not None:
        return f"{where}: {worst.error}."
    return (
        f"{where}: relative L2 {figures.relative_l2:.2e} (bound {worst.bound:.1e}, {worst.bound_reason}), "
        f"worst row {figures.worst_row:.2e} (bound {worst.row_bound:.1e}), max abs {figures.max_abs:.2e}, "
        f"{figures.non_finite} values not finite."
    )
