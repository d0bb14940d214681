"""What is measured on the CPU of each model, and what its INT8 should reach.

Targets name figures of `cpu_verdicts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peers.plans import Target

PEERS = ("onnxruntime dynamic int8", "openvino bf16", "nncf int8")
SOON_MADE = PEERS[:2]
"""NNCF takes minutes for each model; its INT8 is that of the same kernels as ours in OpenVINO."""


@dataclass(frozen=True)
class FullSize:
    """A published configuration with random weights: `plan` is its name in `plans.FULL`.

    `fresh`: a process for each turn, because all candidates together do not fit in memory. `calibration` is the number
    of samples that ours and NNCF are calibrated on. `export` are options of our export.
    """

    plan: str
    targets: tuple[Target, ...]
    rounds: int = 7
    fresh: bool = False
    calibration: int = 4
    peers: Sequence[str] = PEERS
    export: Sequence[str] = ()


@dataclass(frozen=True)
class Shipped:
    """A shipped model on its own data at batch 1, beside our eager model, in turns of `burst` runs."""

    checkpoint: str
    data: str
    targets: tuple[Target, ...]
    rounds: int = 75
    burst: int = 101


_FOR_CPUS = ("--for", "onnxruntime", "--for", "openvino")
_FOUR_TIMES = (Target("int8 speed-up", 4.0),)
_FOUR_TIMES_BY_ANY = (Target("best speed-up", 4.0),)


MODELS: dict[str, FullSize | Shipped] = {
    "fourier": FullSize(
        "fourier",
        (
            Target("int8 speed-up", 5.0),
            Target("int8 speed-up over the best peer", 1.5),
            Target("int8 limit over int8 seconds", 0.85),
        ),
        rounds=15,
        export=_FOR_CPUS,
    ),
    "language": FullSize("language", _FOUR_TIMES),
    "language-256": FullSize("language-256", _FOUR_TIMES, peers=SOON_MADE),
    "learned": FullSize("learned", _FOUR_TIMES, peers=SOON_MADE),
    "conv": FullSize("conv", _FOUR_TIMES, peers=SOON_MADE),
    "flow": FullSize(
        "flow",
        (Target("int8 speed-up", 8.0), Target("int8 peak memory over eager's", 1 / 3, at_least=False)),
        rounds=3,
        fresh=True,
        calibration=2,
        peers=SOON_MADE,
        export=_FOR_CPUS,
    ),
    "digits": Shipped("digits", "digits", _FOUR_TIMES_BY_ANY),
    "sentiment": Shipped("sentiment", "sentiment", _FOUR_TIMES_BY_ANY),
}
