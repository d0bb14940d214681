"""The ways of running a bundle on this machine, and the tryout that leaves the fast ones that keep the contract."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Precision, RuntimeName
from perceiver_deploy.bundle.samples import Sample
from perceiver_deploy.data.metrics import Run
from perceiver_deploy.errors import ParityError, PerceiverDeployError
from perceiver_deploy.evaluate.parity.verdicts import compare
from perceiver_deploy.evaluate.speed.workers import Worker
from perceiver_deploy.machine import usable_cores
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.catalogue import RUNTIMES, installed_runtimes
from perceiver_deploy.runtimes.checks.bounds import error_bound
from perceiver_deploy.runtimes.settings import Hint, RuntimeSettings
from perceiver_deploy.runtimes.way import Way

_FIRST_RUNS = 3
_FIRST_SECONDS = 0.25
_FAR_BEHIND = 2.0
"""First times are the least of some runs, which on a shared machine vary by 1.3x; who takes this many times the best is
out."""
_MOST_OPEN = 8
"""Each is a process that holds the model."""
_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8-weights", "int8")
"""From the one closest to the model's own numbers to the one farthest away."""
_HINTED: dict[Hint, Precision] = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}


def ways_to_run(bundle: Bundle, *, static_shapes: bool = False) -> list[Way]:
    """All ways, the simplest first: the precision closest to the model's, shapes that may change, then few threads."""
    ways = [
        Way(bundle.path, runtime, name, RuntimeSettings(threads, hint, static_shapes=static, keep_compiled=False))
        for name, variant in bundle.manifest.variants.items()
        for runtime in installed_runtimes()
        if runtime in variant.runtimes
        for hint in _hints(runtime)
        for static in ([False, True] if static_shapes and "static_shapes" in RUNTIMES[runtime].settings else [False])
        for threads in _thread_counts(usable_cores())
    ]

    def simplicity(way: Way) -> tuple[int, bool, bool, int]:
        settings, precision = way.settings, coarser_precision(bundle, way)
        return _PRECISIONS.index(precision), settings.hint != "f32", settings.static_shapes, settings.threads or 0

    return sorted(ways, key=simplicity)


def coarser_precision(bundle: Bundle, way: Way) -> Precision:
    """The coarser of the variant's precision and that of the hint."""
    return max(bundle.variant(way.variant).precision, _HINTED[way.settings.hint], key=_PRECISIONS.index)


def _numbers(way: Way) -> Way:
    """What outputs depend on: all but the threads."""
    return replace(way, settings=replace(way.settings, threads=None))


def _hints(runtime: RuntimeName) -> list[Hint]:
    if "hint" not in RUNTIMES[runtime].settings:
        return ["f32"]
    from perceiver_deploy.runtimes.cpu.openvino import native_hints

    return native_hints()


def _thread_counts(cores: int) -> list[int]:
    """1, 2, 4, ... and all cores."""
    return sorted({*(1 << power for power in range(cores.bit_length())), cores})


AccuracyCheck = Callable[[Way, Run], None]
"""Raises a `BoundError` where a way of running does not keep the task's metric."""


class Tryout:
    """Opens ways one at a time, holds them to the contract, times them roughly, and leaves the fast ones open.

    The contract is that of `validate`: relative L2 against eager float64 on the golden samples within the bound of the
    precision. On the inputs that are timed there is no eager; two ways may differ by the sum of their bounds. Where
    `accuracy` is given, the task's metric must have been kept too.
    """

    def __init__(
        self, bundle: Bundle, samples: Sequence[Sample], inputs: Arrays, accuracy: AccuracyCheck | None = None
    ) -> None:
        self.refused: dict[Way, str] = {}
        self.seconds: dict[Way, float] = {}
        self.workers: dict[Way, Worker[Way]] = {}
        self._bundle = bundle
        self._samples = samples
        self._inputs = inputs
        self._accuracy = accuracy
        self._bounds: dict[Way, dict[str, float]] = {}
        self._reference: tuple[Way, Arrays] | None = None

    def add(self, way: Way) -> None:
        """Try one more; afterwards it is in `refused`, with the reason, or in `seconds`, and if fast in `workers`."""
        same = (reason for other, reason in self.refused.items() if _numbers(other) == _numbers(way))
        if reason := next(same, None):
            self.refused[way] = reason
            return
        log.info("Trying %s", way)
        try:
            self._open(way)
        except PerceiverDeployError as error:
            self.refused[way] = str(error)
            return
        self._close_slow()

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers.values():
            worker.close()

    def _open(self, way: Way) -> None:
        worker = Worker(way, way.settings.threads)
        try:
            self._check(worker)
            self.seconds[way] = self._time(worker)
        except PerceiverDeployError:
            worker.close()
            raise
        self.workers[way] = worker

    def _check(self, worker: Worker[Way]) -> None:
        way, numbers = worker.name, _numbers(worker.name)
        if numbers not in self._bounds:
            precision = coarser_precision(self._bundle, way)
            bounds: dict[str, float] = {}
            for sample in self._samples:
                outputs = worker.run(sample.inputs)
                for name, wanted in sample.float64.items():
                    bound, _ = error_bound(precision, compare(sample.float32[name], wanted).relative_l2)
                    _require(outputs[name], wanted, bound, f"{name} at the golden sample {sample.name!r}")
                    bounds[name] = max(bound, bounds.get(name, 0.0))
            if self._accuracy is not None:
                self._accuracy(way, worker.run)
            self._bounds[numbers] = bounds
        outputs = worker.run(self._inputs)
        first, expected = self._reference = self._reference or (way, outputs)
        for name, bound in self._bounds[numbers].items():
            allowed = bound + self._bounds[_numbers(first)][name]
            _require(outputs[name], expected[name], allowed, f"{name} at the sizes that are tuned, against {first}")

    def _time(self, worker: Worker[Way]) -> float:
        worker.keep(self._inputs)
        started, found = time.perf_counter(), list[float]()
        while len(found) < _FIRST_RUNS or time.perf_counter() - started < _FIRST_SECONDS:
            found.append(worker.time_run())
        return min(found)

    def _close_slow(self) -> None:
        by_time = sorted(self.workers, key=self.seconds.__getitem__)
        best = self.seconds[by_time[0]]
        for place, way in enumerate(by_time):
            if place >= _MOST_OPEN or self.seconds[way] > _FAR_BEHIND * best:
                self.workers.pop(way).close()


def _require(found: NDArray[np.generic], wanted: NDArray[np.generic], bound: float, where: str) -> None:
    if found.shape != wanted.shape:
        raise ParityError(f"{where}: shape {list(found.shape)}, expected {list(wanted.shape)}.")
    figures = compare(found, wanted)
    if not figures.relative_l2 <= bound:  # a NaN does not pass
        raise ParityError(f"{where}: relative L2 {figures.relative_l2:.1e}, beyond the bound {bound:.1e}.")
