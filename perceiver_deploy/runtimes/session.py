"""What every runtime offers: a session that checks its inputs, runs, and says what it really runs on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import Axis, Stage, StageName
from perceiver_deploy.errors import BundleError, PerceiverDeployError
from perceiver_deploy.runtimes.checks.inputs import InputCheck
from perceiver_deploy.runtimes.checks.outputs import OutputCheck
from perceiver_deploy.runtimes.in_use import Uses
from perceiver_deploy.runtimes.settings import DEFAULTS, RuntimeSettings


class Session(ABC):
    """A loaded graph. Thread-safe; usable as a context manager.

    `runtime`, `device` and `settings` say what executes and how: there is no fallback to another. `variant` is what
    `load` took from the bundle, None where a graph was opened by itself. `stages` has the inputs and outputs of each
    graph there is. `conforms` says whether the runtime gives the numbers of the graph here (`runtimes.conformance`);
    None where that is not known.
    """

    runtime: str
    device: str
    variant: str | None = None
    conforms: bool | None = None
    stages: Mapping[StageName, Stage]

    def __init__(self, stage: Stage, axes: Mapping[str, Axis], settings: RuntimeSettings = DEFAULTS) -> None:
        self.stages = {"full": stage}
        self.inputs = stage.inputs
        self.outputs = stage.outputs
        self.axes = axes
        self.settings = settings
        self._input_names = tuple(spec.name for spec in stage.inputs)
        self._check = InputCheck(stage.inputs, axes)
        self._check_outputs = OutputCheck(stage.outputs)
        self._uses = Uses(self._refusal)

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Outputs by name for inputs by name.

        Raises:
            InputError: a name, dtype, rank, size or value that the model does not take; nothing was run.
            ParityError: the runtime gives outputs of other dtypes, ranks or sizes than the manifest says.
        """
        with self._uses:
            sizes = self._check(inputs)
            outputs = self._execute({name: np.ascontiguousarray(inputs[name]) for name in self._input_names})
            return self._check_outputs(outputs, sizes, self.runtime)

    def encode(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """`latents` of the data, which can be decoded any number of times.

        Raises:
            BundleError: the bundle has no stage `encoder`.
            InputError: see `run`.
        """
        return self.stage("encoder").run(inputs)

    def decode(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Outputs for `latents` and what the decoder takes beside them (see `stages["decoder"]`).

        Raises:
            BundleError: the bundle has no stage `decoder`.
            InputError: see `run`.
        """
        return self.stage("decoder").run(inputs)

    def stage(self, name: StageName) -> Session:
        """The session of one stage, or a `BundleError` that says how to get it."""
        if name in self.stages:
            return self
        raise BundleError(
            f"There is no stage {name!r} here; there is {', '.join(self.stages)}. Export the checkpoint again with: "
            "perceiver-deploy export CHECKPOINT -o BUNDLE --split"
        )

    def _refusal(self) -> PerceiverDeployError:
        return PerceiverDeployError(f"This {self.runtime} session is closed. Load the bundle again to run it.")

    @abstractmethod
    def _execute(self, inputs: Arrays) -> Arrays:
        """Run checked, contiguous inputs."""

    def close(self) -> None:
        """Free the engine when the runs under way have ended; new ones are refused. Closing twice is allowed."""
        if self._uses.close():
            self._release()

    @abstractmethod
    def _release(self) -> None:
        """Drop the engine's objects."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
