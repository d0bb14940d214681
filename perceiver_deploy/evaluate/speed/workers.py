"""One persistent process per candidate, so that all see the same machine and none slows another down."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import PerceiverDeployError
from perceiver_deploy.evaluate.speed.device_memory import device_bytes

_STARTUP_SECONDS = 300
_WINDOW = 3
_STABLE = 0.95
"""Runs have stopped getting faster when the median of the last ones is no less than this share of that before."""
_MOST_WARM_UP = 40
_SETTLE_SECONDS = 0.003
"""Pause between calls: the threads of the engine called last go on spinning for a moment."""


class Runnable(Protocol):
    """What a worker runs; a `Session` is one."""

    def run(self, inputs: Arrays, /) -> Arrays:
        """Outputs for inputs."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Source(Protocol):
    """What a worker runs, such as a `Way`: it travels to the process, is opened there, and names the worker here."""

    def open(self, threads: int | None) -> Runnable:
        """What it names, ready to run."""
        ...


SourceT = TypeVar("SourceT", bound=Source)


class Worker(Generic[SourceT]):
    """A session in a process of its own. `load_seconds` is how long opening it took, imports included."""

    def __init__(self, name: SourceT, threads: int | None) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, threads), daemon=True)
        self._process.start()
        theirs.close()
        self.load_seconds = float(self._receive(_STARTUP_SECONDS))

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs for inputs."""
        self._connection.send(("run", inputs))
        outputs: Arrays = self._receive()
        return outputs

    def keep(self, inputs: Arrays) -> None:
        """Set the inputs that `time_run` uses."""
        self._connection.send(("keep", inputs))
        self._receive()

    def time_run(self) -> float:
        """Seconds of one run on the kept inputs, measured inside the worker."""
        return self.time_runs(1)[0]

    def time_runs(self, count: int) -> list[float]:
        """Seconds of each of several runs, one straight after the other."""
        self._connection.send(("time", count))
        seconds: list[float] = self._receive()
        return seconds

    def last_outputs(self) -> Arrays:
        """Outputs of the last `time_run`."""
        self._connection.send(("last", None))
        outputs: Arrays = self._receive()
        return outputs

    def peak_bytes(self) -> int:
        """The most memory that the whole process has held so far."""
        self._connection.send(("peak", None))
        return int(self._receive())

    def device_bytes(self) -> int | None:
        """Memory of NVIDIA GPUs that the process holds; None where there is no such GPU."""
        self._connection.send(("device", None))
        held: int | None = self._receive()
        return held

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):  # it may have ended on its own
            self._connection.send(("stop", None))
            self._process.join(10)
        self._process.kill()
        self._connection.close()

    def _receive(self, seconds: float | None = None) -> Any:
        try:
            if seconds is not None and not self._connection.poll(seconds):
                raise PerceiverDeployError(f"{self.name} did not start within {seconds:.0f} s.")
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise PerceiverDeployError(
                f"The process of {self.name} ended with exit code {self._process.exitcode}. "
                "It may have run out of memory: try a smaller batch."
            ) from None
        if isinstance(answer, PerceiverDeployError):
            raise answer
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _serve(connection: Connection, name: Source, threads: int | None) -> None:
    started = time.perf_counter()
    try:
        session = name.open(threads)
    except PerceiverDeployError as error:
        connection.send(error)
        return
    connection.send(time.perf_counter() - started)
    kept: Arrays = {}
    outputs: Arrays = {}
    while True:
        order, given = connection.recv()
        if order == "stop":
            session.close()
            return
        if order == "keep":
            kept = given
            connection.send(None)
        elif order == "peak":
            connection.send(_peak_bytes())
        elif order == "device":
            connection.send(device_bytes())
        elif order == "last":
            connection.send(outputs)
        else:
            outputs = {}
            seconds = []
            try:
                for _ in range(given if order == "time" else 1):
                    started = time.perf_counter()
                    outputs = session.run(given if order == "run" else kept)
                    seconds.append(time.perf_counter() - started)
            except PerceiverDeployError as error:
                connection.send(error)
                continue
            connection.send(outputs if order == "run" else seconds)


def _peak_bytes() -> int:
    """VmHWM where the system tells it: ru_maxrss counts what the process that started this one held at that moment."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def warm_up(worker: Worker[Any], seconds: float) -> tuple[int, bool]:
    """Run the kept inputs until that no longer gets faster, for `seconds` at most.

    Returns how many runs that took, and whether the last runs were as fast as those before them.
    """
    times: list[float] = []
    while len(times) < _MOST_WARM_UP:
        times.append(worker.time_run())
        before, last = times[-2 * _WINDOW : -_WINDOW], times[-_WINDOW:]
        if len(before) == _WINDOW and statistics.median(last) >= _STABLE * statistics.median(before):
            return len(times), True
        if sum(times) > seconds:
            break
    return len(times), False


def time_round_robin(
    workers: Sequence[Worker[SourceT]],
    inputs: Arrays,
    *,
    seconds: float,
    warm_up: int = 5,
    least: int = 10,
    most: int = 300,
    settle: float = _SETTLE_SECONDS,
) -> dict[SourceT, list[float]]:
    """Raw seconds of each worker on the same inputs, one run each in turn.

    Rounds go on until `seconds` have passed, at least `least` and at most `most` of them, after `warm_up` that do not
    count. `settle` is the pause before each run, in seconds.
    """
    for worker in workers:
        worker.keep(inputs)
        for _ in range(warm_up):
            worker.time_run()
    samples: dict[SourceT, list[float]] = {worker.name: [] for worker in workers}
    started = time.perf_counter()
    for finished in range(most):
        if finished >= least and time.perf_counter() - started > seconds:
            break
        for worker in workers:
            time.sleep(settle)
            samples[worker.name].append(worker.time_run())
    return samples
