"""Numeric parity: figures that compare outputs, the bounds they are held to, and the verdicts.

fp32 is held to 10 times the error that eager float32 itself has against float64 (at least 1e-6), fp16 and bf16 to that
error with the roundings of their own. The bounds of reduced precision only catch broken graphs; their real judge is the
task metric. The worst row has a bound of its own, so that one that is wrong cannot hide among many that are right.

Where it is known what a variant's own graph gives exactly (golden samples), a runtime is held to that as well, by what
rounding alone may do: see `runtimes.conformance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays, relative_l2
from perceiver_deploy.bundle.manifest import Precision
from perceiver_deploy.bundle.samples import Sample
from perceiver_deploy.data.metrics import has_classes
from perceiver_deploy.errors import PerceiverDeployError
from perceiver_deploy.evaluate.parity.grid import OUT_OF_RANGE
from perceiver_deploy.runtimes.checks.bounds import BOUNDS, EAGER_FACTOR, FP32_FLOOR, error_bound
from perceiver_deploy.runtimes.conformance import Expected, Route
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.stages.queries import answer_queries

Stages = Literal["full", "encoder + decoder"]
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
    f"off by; the worst row {UNRELATED_ROW:g}; of values that are out of range by far only that outputs are finite; "
    "what its graph gives exactly is the stricter judge",
    "int8-weights": f"{BOUNDS['int8-weights']:g}: weights of normal values are off by 0.8 % in each product; the worst "
    f"row {ROW_FACTOR} x as much",
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

    `graph_error` is the relative L2 distance to what the variant's own graph gives exactly, `graph_bound` what rounding
    explains of it; both None where that is not known, as it is for golden samples alone. `error` is why it did not run.
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
    graph_error: float | None = None
    graph_bound: float | None = None
    error: str | None = None
    stages: Stages = "full"

    @property
    def conforms(self) -> bool | None:
        """Whether the runtime gives the numbers of the graph; None where that is not known."""
        if self.graph_error is None or self.graph_bound is None:
            return None
        return self.graph_error <= self.graph_bound

    @property
    def passed(self) -> bool:
        """A NaN never passes."""
        return (
            self.error is None
            and self.figures.non_finite == 0
            and self.figures.relative_l2 <= self.bound
            and self.figures.worst_row <= self.row_bound
            and self.conforms is not False
        )

    @property
    def excess(self) -> float:
        """How many times its bound the error is, of all or of the worst row; infinite without finite outputs."""
        if self.error is not None or self.figures.non_finite:
            return math.inf
        beyond = [self.figures.relative_l2 / self.bound, self.figures.worst_row / self.row_bound]
        if self.graph_error is not None and self.graph_bound:
            beyond.append(self.graph_error / self.graph_bound)
        return max(beyond)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, `passed` included."""
        bounds = {name: finite_or_none(getattr(self, name)) for name in ("bound", "row_bound", "graph_error")}
        return {**asdict(self), "figures": self.figures.to_json(), **bounds, "passed": self.passed}


@dataclass(frozen=True)
class Candidate:
    """A session to be judged, with the variant it runs: by its stage `full`, or by encoding and decoding.

    The latter decodes the queries in two chunks, so that each is known to be answered independently of the others.
    `exact` has what the variant gives exactly, by the names of samples.
    """

    session: Session
    variant: str
    precision: Precision
    stages: Stages = "full"
    exact: Mapping[str, Expected] = field(default_factory=dict)

    def exact_for(self, sample: Sample) -> Expected | None:
        """What the variant gives exactly for a sample, where that is known for just its inputs."""
        found = self.exact.get(sample.name)
        if found is None or any(
            not np.array_equal(array, sample.inputs[name]) for name, array in found.sample.inputs.items()
        ):
            return None
        return found

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs of the stage `full`."""
        if self.stages == "full":
            return self.session.run(inputs)
        return answer_queries(self.session, inputs, lambda count: -(-count // 2))


ExactOutputs = Callable[[Route], Mapping[str, Expected]]


def candidates_of(
    session: Session, variant: str, precision: Precision, exact: ExactOutputs = lambda route: {}
) -> list[Candidate]:
    """How the stages of a session can be run; `exact` has what each route gives exactly, by sample."""
    found = []
    if "full" in session.stages:
        found.append(Candidate(session, variant, precision, "full", exact("full")))
    if "decoder" in session.stages:
        found.append(Candidate(session, variant, precision, "encoder + decoder", exact("stages")))
    return found


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
        relative_l2=relative_l2(found, wanted),
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
            exact = candidate.exact_for(sample) if error is None else None
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
                    graph_error=None if exact is None else relative_l2(outputs[name], exact.outputs[name]),
                    graph_bound=None if exact is None else exact.bounds[name],
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
        return f"{where}: {worst.error.rstrip('.')}."
    if worst.conforms is False:
        return (
            f"{where}: the runtime is {worst.graph_error:.2e} (relative L2) off what the variant's own graph gives, "
            f"where rounding explains {worst.graph_bound:.1e}; it does not compute this graph as it is written on this "
            "processor. Use another runtime or variant here."
        )
    return (
        f"{where}: relative L2 {figures.relative_l2:.2e} (bound {worst.bound:.1e}, {worst.bound_reason}), "
        f"worst row {figures.worst_row:.2e} (bound {worst.row_bound:.1e}), max abs {figures.max_abs:.2e}, "
        f"{figures.non_finite} values not finite."
    )
