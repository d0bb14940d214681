"""The reference: the eager model in float64, and in float32 to know what float32 can reach."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray
from torch import nn

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import Signature
from perceiver_deploy.bundle.preprocessing import Preprocessing
from perceiver_deploy.bundle.samples import Sample
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.evaluate.parity.verdicts import compare
from perceiver_deploy.model.raw.resize import LARGEST_ERROR, BicubicResize
from perceiver_deploy.runtimes.eager import EagerSession

_ALWAYS_RUN = 2
_MOST_INPUT_BYTES = 48 << 20
"""Attention scores of such an input take about a hundred times its size."""


class Reference:
    """Eager float64 and float32 copies of a model.

    Where pictures are resized there are two in float32, rounding levels a little high and a little low: near the middle
    of two levels float32 cannot tell which it is to be. What is farther from float64 counts as float32's result.
    """

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        self._signature = signature
        resizes = any(isinstance(module, BicubicResize) for module in model.modules())
        self._double = EagerSession(_copy(model, 0.0), signature.stage, signature.axes, double=True)
        self._singles = [
            EagerSession(_copy(model, rounding), signature.stage, signature.axes)
            for rounding in ((-LARGEST_ERROR, LARGEST_ERROR) if resizes else (0.0,))
        ]

    def sample(self, name: str, inputs: Arrays) -> Sample:
        """Run all on the inputs."""
        double = self._double.run(inputs)
        singles = [session.run(inputs) for session in self._singles]
        farthest = {
            output: max((single[output] for single in singles), key=partial(_distance, wanted))
            for output, wanted in double.items()
        }
        return Sample(name, inputs, double, farthest)

    def samples(
        self, cases: Sequence[Case], preprocessing: Preprocessing | None, seconds: float
    ) -> Iterator[Sample | Case]:
        """Samples of the cases in turn; of what is beyond 48 MiB of input or `seconds` in total, the case itself.

        The first two always run. The time of a case is predicted from the first one's, per input element.
        """
        spent, rate = 0.0, 0.0
        for index, case in enumerate(cases):
            inputs = make_inputs(self._signature, case, preprocessing)
            elements = sum(array.size for array in inputs.values())
            too_large = sum(array.nbytes for array in inputs.values()) > _MOST_INPUT_BYTES
            if index >= _ALWAYS_RUN and (too_large or spent + rate * elements > seconds):
                yield case
                continue
            started = time.perf_counter()
            sample = self.sample(case.name, inputs)
            took = time.perf_counter() - started
            spent, rate = spent + took, rate or took / elements
            yield sample


def _distance(wanted: NDArray[Any], result: NDArray[Any]) -> float:
    return compare(result, wanted).relative_l2


def _copy(model: nn.Module, rounding: float) -> nn.Module:
    """A copy in eval mode, whose resizes add `rounding` to a level before they round it."""
    copied = copy.deepcopy(model).eval()
    for module in copied.modules():
        if isinstance(module, BicubicResize):
            module.rounding = rounding
    return copied
