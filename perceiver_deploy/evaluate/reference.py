"""The reference: the eager model in float64, and in float32 to know what float32 can reach."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence

from torch import nn

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.evaluate.grid import Case, make_inputs
from perceiver_deploy.evaluate.samples import Sample
from perceiver_deploy.manifest import Signature
from perceiver_deploy.model.raw.resize import LARGEST_ERROR, BicubicResize
from perceiver_deploy.preprocessing import Preprocessing
from perceiver_deploy.runtimes.torch import EagerSession

_ALWAYS_RUN = 2
_MOST_INPUT_BYTES = 48 << 20
"""Attention scores of such an input take about a hundred times its size."""


class Reference:
    """Eager float64 and float32 copies of a model.

    Where pictures are resized, the float32 one rounds levels a little high, because float32 alone cannot tell to which
    side a level goes that is that near to the middle of two.
    """

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        self._signature = signature
        double, single = (copy.deepcopy(model).eval() for _ in range(2))
        for module in single.modules():
            if isinstance(module, BicubicResize):
                module.rounding = LARGEST_ERROR
        self._double = EagerSession(double, signature.stage, signature.axes, double=True)
        self._single = EagerSession(single, signature.stage, signature.axes)

    def sample(self, name: str, inputs: Arrays) -> Sample:
        """Run both on the inputs."""
        return Sample(name, inputs, self._double.run(inputs), self._single.run(inputs))

    def samples(
        self,
        cases: Sequence[Case],
        preprocessing: Preprocessing | None,
        seconds: float,
        capped: list[Case],
    ) -> Iterator[Sample]:
        """Samples of the cases in turn; cases beyond 48 MiB of input or `seconds` in total are put in `capped`.

        The first two always run. The time of a case is predicted from the first one's, per input element.
        """
        spent, rate = 0.0, 0.0
        for index, case in enumerate(cases):
            inputs = make_inputs(self._signature, case, preprocessing)
            elements = sum(array.size for array in inputs.values())
            too_large = sum(array.nbytes for array in inputs.values()) > _MOST_INPUT_BYTES
            if index >= _ALWAYS_RUN and (too_large or spent + rate * elements > seconds):
                capped.append(case)
                continue
            started = time.perf_counter()
            sample = self.sample(case.name, inputs)
            took = time.perf_counter() - started
            spent, rate = spent + took, rate or took / elements
            yield sample
