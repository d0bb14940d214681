"""Numeric parity: figures that compare outputs, the bounds they are held to, and the verdicts.

fp32 is held to 10 times the error that eager float32 itself has against float64 (at least 1e-6). The bounds of the
other precisions only catch broken graphs; their real judge is the task metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import PerceiverDeployError
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
INT8: on noise outside its calibrated ranges, which the grid holds, it is off by up to 0.4.
"""


@dataclass(frozen=True)
class Figures:
    """How an output differs from the reference. `top1` is the share of rows with the same largest entry."""

    max_abs: float
    relative_l2: float
    cosine: float
    sqnr_db: float
    top1: float | None
    non_finite: int

    def to_json(self) -> dict[str, float | None]:
        """A plain dict. What is not finite is None: JSON has no word for it."""
        return {name: _finite(value) for name, value in asdict(self).items()}


_NO_FIGURES = Figures(np.inf, np.inf, 0.0, -np.inf, None, 0)


@dataclass(frozen=True)
class Verdict:
    """One output of one candidate at one case, and the bound on its relative L2. `error` is why it did not run."""

    runtime: str
    variant: str
    case: str
    sizes: str
    output: str
    figures: Figures
    bound: float
    bound_reason: str
    error: str | None = None
    stages: Stages = "full"

    @property
    def passed(self) -> bool:
        """A NaN never passes."""
        return self.error is None and self.figures.non_finite == 0 and self.figures.relative_l2 <= self.bound

    def to_json(self) -> dict[str, Any]:
        """A plain dict, `passed` included."""
        return {**asdict(self), "figures": self.figures.to_json(), "bound": _finite(self.bound), "passed": self.passed}


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


def _finite(value: float | None) -> float | None:
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
        return Figures(np.inf, np.inf, 0.0, -np.inf, None, non_finite)
    norm, error = float(np.linalg.norm(wanted)), float(np.linalg.norm(found - wanted))
    product = norm * float(np.linalg.norm(found))
    return Figures(
        max_abs=float(np.abs(found - wanted).max(initial=0)),
        relative_l2=error / norm if norm else error,
        cosine=float(np.vdot(found, wanted)) / product if product else float(error == 0),
        sqnr_db=float(20 * np.log10(norm / error)) if error and norm else np.inf,
        top1=float((found.argmax(-1) == wanted.argmax(-1)).mean()) if found.ndim > 1 and found.shape[-1] > 1 else None,
        non_finite=0,
    )


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
            bound, reason = error_bound(candidate.precision, compare(sample.float32[name], reference).relative_l2)
            verdicts.append(
                Verdict(
                    runtime=candidate.session.runtime,
                    variant=candidate.variant,
                    case=sample.name,
                    sizes=", ".join(f"{key} {list(array.shape)}" for key, array in sample.inputs.items()),
                    output=name,
                    figures=compare(outputs[name], reference) if error is None else _NO_FIGURES,
                    bound=bound,
                    bound_reason=reason,
                    error=error,
                    stages=candidate.stages,
                )
            )
    return verdicts


def error_bound(precision: Precision, eager_error: float) -> tuple[float, str]:
    """The bound on relative L2, and its reason; `eager_error` is that of eager float32 on the same inputs."""
    if precision != "fp32":
        return BOUNDS[precision], f"stated for {precision}"
    if not math.isfinite(eager_error) or EAGER_FACTOR * eager_error <= FP32_FLOOR:
        return FP32_FLOOR, "floor for fp32"
    return EAGER_FACTOR * eager_error, f"{EAGER_FACTOR} x eager float32's own {eager_error:.1e}"


def failure_text(verdicts: Sequence[Verdict]) -> str:
    """One paragraph on the worst of the failures."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    worst = max(failed, key=lambda verdict: verdict.figures.relative_l2 / verdict.bound)
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
        f"max abs {figures.max_abs:.2e}, {figures.non_finite} values not finite."
    )
