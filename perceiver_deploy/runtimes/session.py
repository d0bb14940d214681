"""What every runtime offers: a session that checks its inputs, runs, and says what it really runs on."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import BundleError, InputError, PerceiverDeployError
from perceiver_deploy.manifest import Axis, Stage, StageName, TensorSpec, evaluate_size
from perceiver_deploy.runtimes.settings import DEFAULTS, RuntimeSettings


class Session(ABC):
    """A loaded graph. Thread-safe; usable as a context manager.

    `runtime`, `device` and `settings` say what executes and how: there is no fallback to another. `variant` is what
    `load` took from the bundle, None where a graph was opened by itself. `stages` has the inputs and outputs of each
    graph there is.
    """

    runtime: str
    device: str
    variant: str | None = None
    stages: Mapping[StageName, Stage]

    def __init__(self, stage: Stage, axes: Mapping[str, Axis], settings: RuntimeSettings = DEFAULTS) -> None:
        self.stages = {"full": stage}
        self.inputs = stage.inputs
        self.outputs = stage.outputs
        self.axes = axes
        self.settings = settings
        self._closed = False
        self._running = 0
        self._ended = threading.Condition()

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Outputs by name for inputs by name.

        Raises:
            InputError: a name, dtype, rank, size or value that the model does not take; nothing was run.
        """
        with self._in_use():
            check_inputs(inputs, self.inputs, self.axes)
            return self._execute({spec.name: np.ascontiguousarray(inputs[spec.name]) for spec in self.inputs})

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

    def _ensure_open(self) -> None:
        if self._closed:
            raise PerceiverDeployError(f"This {self.runtime} session is closed. Load the bundle again to run it.")

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keep `close` waiting."""
        with self._ended:
            self._ensure_open()
            self._running += 1
        try:
            yield
        finally:
            with self._ended:
                self._running -= 1
                self._ended.notify_all()

    @abstractmethod
    def _execute(self, inputs: Arrays) -> Arrays:
        """Run checked, contiguous inputs."""

    def close(self) -> None:
        """Free the engine when the runs under way have ended; new ones are refused. Closing twice is allowed."""
        with self._ended:
            if self._closed:
                return
            self._closed = True
            self._ended.wait_for(lambda: self._running == 0)
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


def check_inputs(
    inputs: Mapping[str, NDArray[np.generic]], specs: tuple[TensorSpec, ...], axes: Mapping[str, Axis]
) -> None:
    """Refuse inputs that the model does not take, saying what was expected.

    Raises:
        InputError: on the first problem found.
    """
    expected = ", ".join(spec.name for spec in specs)
    if unknown := inputs.keys() - {spec.name for spec in specs}:
        raise InputError(f"There is no input {sorted(unknown)[0]!r}. The inputs are: {expected}.")
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        if spec.name not in inputs:
            raise InputError(f"Input {spec.name!r} is missing. The inputs are: {expected}.")
        _check_array(inputs[spec.name], spec)
        _check_axes(inputs[spec.name].shape, spec, axes, sizes)
    found = {name: size for name, (size, _) in sizes.items()}
    for spec in specs:
        _check_expressions(inputs[spec.name].shape, spec, found)
    for spec in specs:
        if spec.dtype == "int64" and len(spec.shape) == 1 and isinstance(spec.shape[0], int):
            found |= {f"{spec.name}[{index}]": int(value) for index, value in enumerate(inputs[spec.name])}
    for spec in specs:
        _check_values(inputs[spec.name], spec, found)


def axis_sizes(inputs: Mapping[str, NDArray[np.generic]], specs: Sequence[TensorSpec]) -> dict[str, int]:
    """Sizes of the axes that checked inputs have."""
    return {
        str(name): size
        for spec in specs
        for name, size in zip(spec.shape, inputs[spec.name].shape, strict=True)
        if str(name).isidentifier()
    }


def _check_array(array: NDArray[np.generic], spec: TensorSpec) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(f"Input {spec.name!r} is a {type(array).__name__}; expected a NumPy array of {spec.dtype}.")
    if array.dtype != spec.dtype:
        raise InputError(
            f"Input {spec.name!r} has dtype {array.dtype}; expected {spec.dtype}. "
            f"Convert it with array.astype('{spec.dtype}')."
        )
    if array.ndim != len(spec.shape):
        raise InputError(
            f"Input {spec.name!r} has {array.ndim} dimensions {list(array.shape)}; expected {len(spec.shape)}: "
            f"{_shape_text(spec)}."
        )


def _check_axes(
    shape: tuple[int, ...], spec: TensorSpec, axes: Mapping[str, Axis], sizes: dict[str, tuple[int, str]]
) -> None:
    for size, wanted in zip(shape, spec.shape, strict=True):
        if isinstance(wanted, int):
            if size != wanted:
                raise InputError(f"Input {spec.name!r} has shape {list(shape)}; expected {_shape_text(spec)}.")
            continue
        if wanted not in axes:
            continue
        if problem := axes[wanted].problem(size):
            raise InputError(
                f"Input {spec.name!r} has {wanted} {size} (shape {list(shape)}); expected {problem}. "
                "Change the input's size or use a model made for it."
            )
        bound, first = sizes.setdefault(wanted, (size, spec.name))
        if size != bound:
            raise InputError(f"Inputs {first!r} and {spec.name!r} must have the same {wanted}, got {bound} and {size}.")


def _check_expressions(shape: tuple[int, ...], spec: TensorSpec, sizes: Mapping[str, int]) -> None:
    """Sizes that follow from axes of any input, as `samples/16` does."""
    expected = [evaluate_size(size, sizes) for size in spec.shape]
    if list(shape) != expected:
        raise InputError(f"Input {spec.name!r} has shape {list(shape)}; expected {_shape_text(spec)} = {expected}.")


def _check_values(array: NDArray[np.generic], spec: TensorSpec, sizes: Mapping[str, int]) -> None:
    if array.size == 0:
        return
    if spec.minimum is not None and (least := int(array.min())) < spec.minimum:
        raise InputError(f"Input {spec.name!r} holds the value {least}; expected at least {spec.minimum}.")
    if spec.maximum is not None and (most := int(array.max())) > (bound := evaluate_size(spec.maximum, sizes)):
        raise InputError(f"Input {spec.name!r} holds the value {most}; expected at most {bound}.")


def _shape_text(spec: TensorSpec) -> str:
    return "[" + ", ".join(str(size) for size in spec.shape) + "]"
