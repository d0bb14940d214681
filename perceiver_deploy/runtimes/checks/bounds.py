"""What numbers of a precision are held to, and what rounding alone may do to them.

Two distances have two bounds. `error_bound` is about what a precision costs: outputs beside those of eager.
`rounding_bound` is about what a machine does wrong: outputs beside those of the same graph, computed exactly as it
says.
"""

from __future__ import annotations

import math

from perceiver_deploy.bundle.manifest import Precision

EAGER_FACTOR = 10
FP32_FLOOR = 1e-6
BOUNDS: dict[Precision, float] = {"fp16": 1e-2, "bf16": 8e-2, "int8-weights": 1e-1, "int8": 5e-1}
"""Bounds on relative L2 of the reduced precisions. A graph that is wired wrongly is off by 1 or more.

fp16 and bf16: 20 unit roundoffs (2^-11 and 2^-8). Each rounding is off by up to one, 0.4 in the mean square, and
independent ones add up as the root of their number: 20 are about 2,000 roundings one after the other, which 48 layers
of a dozen operations each, with weights that are rounded too, do not reach. Small models of every task are within 11.
An output that is small because large terms cancel, such as the near silence of an autoencoder, loses more in every
precision, and eager float32 shows how much more: see `COARSER`.
INT8 weights: a weight of normal values has an SQNR of about 42 dB, an error of 0.8 %, in each of some hundred products.
INT8: on noise outside its calibrated ranges, which the grid holds, it is off by up to 0.4.
"""
COARSER: dict[Precision, int] = {"fp16": 2**13, "bf16": 2**16}
"""How many times larger than float32's the roundings are. Shipped models in fp16 and bf16 are off by 0.03 to 1.2 times
this much of eager float32's error."""
BROKEN = 0.5
"""No bound on relative L2 is above it."""

ROUNDING_FACTOR, ROUNDING_FLOOR = 100, 1e-5
"""Two runtimes that compute the same float32 graph differ in the order of sums and in how they approximate exp, erf and
tanh: by some units in the last place at each step. Eager float32's own error shows what that amounts to in a model; it
may be small by chance on one sample, so ten times what parity allows is allowed. A product in half precision is off by
more than 1e-4."""
NUDGE = 2.0**-18
"""How far the values that are rounded to INT8 are moved to see what their float32 roundings lead to: 32 units in the
last place."""
NUDGED_FACTOR = 3
"""A value near the middle of two levels of INT8 is rounded to the one or the other by the last bits of float32, and
each such level moves others further on: after a dozen layers two correct machines differ by about as much as INT8
itself costs. How much that is, is measured on each graph by nudging what is rounded (`NUDGE`), four times. OpenVINO and
onnxruntime were within 1.1 times the largest of the four on shipped tasks, on processors with INT8 dot products and
without (benchmarks/results/conformance.json); sums that saturate were at 5 to 50 times."""


def error_bound(precision: Precision, eager_error: float) -> tuple[float, str]:
    """The bound on relative L2 against eager, and its reason; `eager_error` is that of eager float32 on the inputs."""
    if precision != "fp32":
        scaled = COARSER.get(precision, 0) * eager_error
        if math.isfinite(scaled) and scaled > BOUNDS[precision]:
            return min(scaled, BROKEN), f"{COARSER[precision]} x eager float32's own {eager_error:.1e}"
        return BOUNDS[precision], f"stated for {precision}"
    if not math.isfinite(eager_error) or EAGER_FACTOR * eager_error <= FP32_FLOOR:
        return FP32_FLOOR, "floor for fp32"
    return EAGER_FACTOR * eager_error, f"{EAGER_FACTOR} x eager float32's own {eager_error:.1e}"


def rounding_bound(precision: Precision, eager_error: float, nudged: float = 0.0) -> float:
    """The bound on relative L2 against the exact graph.

    Args:
        precision: of the graph.
        eager_error: of eager float32 on the same inputs.
        nudged: the largest distance that nudging what is rounded to INT8 led to.
    """
    if precision in ("fp16", "bf16"):  # a runtime may leave out roundings that the graph states
        return error_bound(precision, eager_error)[0]
    floor = max(ROUNDING_FLOOR, ROUNDING_FACTOR * eager_error) if math.isfinite(eager_error) else ROUNDING_FLOOR
    return min(max(floor, NUDGED_FACTOR * nudged), BROKEN)
