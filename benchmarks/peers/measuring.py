"""Is a graph right at several sizes, and how long do the candidates take beside each other?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from peers.sources import GemmSource
from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import PerceiverDeployError
from perceiver_deploy.evaluate.parity.verdicts import compare
from perceiver_deploy.evaluate.speed.workers import Source, Worker
from perceiver_deploy.progress import log

RIGHT = 1e-4
"""Bound on relative L2 against eager float32. Rounding leaves 1e-6 to 1e-5 here, another formula 1e-2 and more."""
_SETTLE_SECONDS = 0.05
_TOLD_SECONDS = 0.1  # shorter runs are not worth a line each


@dataclass(frozen=True)
class Case:
    """Sizes, inputs, and what transformers' eager model gives."""

    sizes: Mapping[str, int]
    inputs: Arrays
    expected: Arrays


@dataclass
class Timing:
    """Seconds of each run, the most memory the process held, and how far its last outputs are off."""

    samples: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    outputs: Arrays = field(default_factory=dict)
    error: str | None = None

    def to_json(self, case: Case, bound: float = RIGHT) -> dict[str, Any]:
        """A plain dict, with the outputs compared."""
        if self.error is not None:
            return {"error": self.error}
        return {
            "median": float(np.median(self.samples)),
            "samples": self.samples,
            "peak_bytes": self.peak_bytes,
            **judge(self.outputs, case, bound),
        }


def judge(outputs: Arrays, case: Case, bound: float = RIGHT) -> dict[str, Any]:
    """`relative_l2` (the worst output's) and whether that is `right`; `error` where shapes differ."""
    worst = 0.0
    for name, expected in case.expected.items():
        found = outputs[name]
        if case.inputs.keys() == {"input_ids", "attention_mask"} and found.ndim == 3:
            # Transformers' model gives logits for all 2048 positions; those asked for are compared.
            found, expected = (array[:, : case.sizes["length"]] for array in (found, expected))
        try:
            worst = max(worst, compare(found, expected).relative_l2)
        except ValueError as error:
            return {"right": False, "relative_l2": None, "error": f"{name}: {error}"}
    return {"right": worst <= bound, "relative_l2": worst if np.isfinite(worst) else None}


def check(source: Source, cases: Sequence[Case], threads: int) -> list[dict[str, Any]]:
    """For each case its sizes with what `judge` says; a graph that does not run is not right."""
    results = []
    with ExitStack() as stack:
        worker: Worker[Source] | None = None
        for case in cases:
            try:
                worker = worker or stack.enter_context(Worker(source, threads))
                found = judge(worker.run(case.inputs), case)
            except PerceiverDeployError as error:
                found = {"right": False, "relative_l2": None, "error": brief(error)}
            results.append({"sizes": dict(case.sizes), **found})
    return results


def time_beside(
    sources: Sequence[Source], inputs: Arrays, *, threads: int, rounds: int, fresh: bool, burst: int = 1
) -> dict[Source, Timing]:
    """Seconds of every source, one run each in turn; one that fails is left out from then on.

    With `fresh` each turn has a new process; otherwise one process each serves all, after a turn that does not count.
    With a `burst` of more than one a turn is as many runs, of which the first, that finds the caches as the others left
    them, does not count, and the others count with their median.
    """
    timings = {source: Timing() for source in sources}
    with ExitStack() as stack:
        workers: dict[Source, Worker[Source]] = {}
        for turn in range(rounds if fresh else rounds + 1):
            for source in sources:
                timing = timings[source]
                if timing.error is not None:
                    continue
                seconds = 0.0
                try:
                    if source not in workers:
                        workers[source] = stack.enter_context(Worker(source, threads))
                        workers[source].keep(inputs)
                    time.sleep(_SETTLE_SECONDS)
                    runs = workers[source].time_runs(burst)
                    seconds = float(np.median(runs[1:] or runs))
                    timing.outputs = workers[source].last_outputs()
                    if isinstance(source, GemmSource):  # it knows better what its products took
                        seconds = float(timing.outputs["seconds"])
                    if fresh or turn > 0:
                        timing.samples.append(seconds)
                    timing.peak_bytes = max(timing.peak_bytes, workers[source].peak_bytes())
                except PerceiverDeployError as error:
                    timing.error = brief(error)
                name = f"round {turn + fresh} of {rounds}" if turn + fresh else "warm-up"
                if seconds > _TOLD_SECONDS or timing.error:
                    log.info("%s: %s %s", name, source, timing.error or f"{seconds:.2f} s")
                if fresh and source in workers:
                    workers.pop(source).close()
    return timings


def brief(error: BaseException | str) -> str:
    """The first lines of an error's text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else f"{text[:400]}..."
