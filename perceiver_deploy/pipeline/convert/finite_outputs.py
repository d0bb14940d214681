"""A variant's outputs are finite where those of fp32 are."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import ParityError


class FiniteOutputs:
    """Looks at the outputs of a variant, batch by batch, and then at those of fp32 for the same batches."""

    def __init__(self, variant: str) -> None:
        self._variant = variant
        self._lost: deque[dict[str, NDArray[np.bool_]]] = deque()

    def note(self, outputs: Arrays) -> Arrays:
        """Remember where outputs of the variant are not finite; returns them."""
        lost = {name: ~np.isfinite(array) for name, array in outputs.items()}
        self._lost.append({name: where for name, where in lost.items() if where.any()})
        return outputs

    def require(self, outputs: Arrays) -> Arrays:
        """Hold the variant's next batch against fp32's outputs; returns them.

        Raises:
            ParityError: a value is not finite where fp32's is.
        """
        for name, where in self._lost.popleft().items():
            if count := int((where & np.isfinite(outputs[name])).sum()):
                raise ParityError(
                    f"{self._variant} is not written: of its output {name}, {count} of {where.size} values of a batch "
                    "of calibration samples are not finite, and fp32's are. Choose another precision, or return layers "
                    "to float32 with --max-drop."
                )
        return outputs
