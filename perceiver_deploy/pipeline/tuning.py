"""Tune: the fastest runtime, variant, thread count and hint that keep the contract on this machine, by measurement."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from perceiver_deploy.bundle import Bundle
from perceiver_deploy.cache import write_whole
from perceiver_deploy.errors import MissingError, ParityError, PerceiverDeployError, UsageError
from perceiver_deploy.evaluate.contract import MaxDrop
from perceiver_deploy.evaluate.grid import Case, make_inputs
from perceiver_deploy.evaluate.ranking import LEAST_ROUNDS, Interval, Ranking, rank
from perceiver_deploy.evaluate.workers import time_round_robin
from perceiver_deploy.manifest import Manifest
from perceiver_deploy.pipeline.candidates import Tryout, Way, ways_to_run
from perceiver_deploy.pipeline.tuned_accuracy import accuracy_check
from perceiver_deploy.pipeline.validation_samples import golden_samples
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.tuned import Environment, TunedChoice, Tuning, tuning_path, write_tuning

SECONDS = 60.0
_TRYOUT_SHARE = 0.6
"""Of the time, for opening, checking and first timing; the rest ranks those that are left."""

_SETTLE = 0.05
"""Seconds between runs. The threads of onnxruntime spin for 40 ms after one (measured, 1.32), on cores that the next
candidate needs; a candidate of one thread has none that could."""

State = Literal["ranked", "slow", "refused", "not tried"]


@dataclass(frozen=True)
class Finding:
    """What became of one way of running the bundle.

    `first_seconds` is the least of the times when it was tried alone, perhaps on a busier machine than others;
    `seconds` the median time when it was ranked, and `times_fastest` the 95 % interval of its time over that of the
    fastest; `reason` why it was refused.
    """

    runtime: str
    variant: str
    hint: str
    threads: int
    state: State
    first_seconds: float | None = None
    seconds: float | None = None
    times_fastest: Interval | None = None
    reason: str | None = None


@dataclass(frozen=True)
class TuneResult:
    """The choice, all findings with the choice first, and the file that `load` reads it from.

    `remark` says when the machine was too noisy to rank.
    """

    bundle: str
    chosen: str
    findings: tuple[Finding, ...]
    remark: str | None
    sizes: dict[str, int]
    environment: Environment
    file: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {**asdict(self), "environment": self.environment.model_dump()}


def tune_bundle(
    bundle: str | Path,
    *,
    batch: int = 1,
    sizes: Mapping[str, int] | None = None,
    seconds: float = SECONDS,
    max_drop: MaxDrop | str | None = None,
    data: str | Path | None = None,
) -> TuneResult:
    """Measure every way of running a bundle here, and keep the best in the user's cache, where `load` finds it.

    Args:
        bundle: the bundle.
        batch: batch size to tune for.
        sizes: sizes of other axes; those not given have their usual size.
        seconds: time to take. What is left to try when six tenths have passed is left out and named, and what is left
            in is run at least six times.
        max_drop: by how much the task's metric may fall against eager (`MaxDrop`, or "0.5", or "1%"), on top of the
            numeric bounds. Without `data`, reduced precision counts only where the manifest says that it was kept.
        data: what `max_drop` is measured on, as `held_out` of `convert_bundle`; this takes its time beside `seconds`.

    Raises:
        UsageError: an axis or size that the bundle does not have, or `data` without `max_drop`.
        BundleError: no such bundle, or it has no golden samples.
        MissingError: no runtime is installed that any variant is for.
        ParityError: nothing keeps the contract.
        PerceiverDeployError: the cache cannot be written.
    """
    started = time.perf_counter()
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    case = Case("tuning", _sizes(manifest, batch, sizes or {}))
    accuracy = accuracy_check(opened, max_drop, data)
    _require_cache(tuning_path(manifest))
    ways = ways_to_run(opened)
    if not ways:
        raise MissingError(
            "No runtime that this bundle is for is installed. Install them with: pip install 'perceiver-deploy[cpu]'"
        )
    inputs = make_inputs(manifest.signature, case, manifest.preprocessing)
    tryout = Tryout([*golden_samples(opened)], inputs, accuracy)
    with contextlib.closing(tryout):
        _try_out(ways, tryout, started + _TRYOUT_SHARE * seconds)
        finalists = [way for way in ways if way in tryout.workers]
        log.info("Ranking %s", "; ".join(map(str, finalists)))
        workers = [tryout.workers[way] for way in finalists]
        left = started + seconds - time.perf_counter()
        samples = time_round_robin(workers, inputs, seconds=left, warm_up=1, least=LEAST_ROUNDS, settle=_SETTLE)
    ranking = rank([samples[way] for way in finalists])
    chosen = finalists[ranking.chosen]
    medians = {way: statistics.median(samples[way]) for way in finalists}
    slow = sorted(tryout.seconds.keys() - medians.keys(), key=tryout.seconds.__getitem__)
    order = [*sorted(finalists, key=lambda way: (way != chosen, medians[way])), *slow]
    tuning = Tuning(
        bundle=str(opened.path.resolve()),
        environment=Environment.here(),
        sizes=case.sizes,
        choices=tuple(
            TunedChoice(runtime=way.runtime, variant=way.variant, hint=way.hint, threads=way.threads) for way in order
        ),
    )
    file = write_tuning(manifest, tuning)
    intervals = dict(zip(finalists, ranking.intervals, strict=True))
    everything = [*order, *(way for way in ways if way not in order)]
    return TuneResult(
        bundle=str(bundle),
        chosen=str(chosen),
        findings=tuple(_finding(way, tryout, medians, intervals) for way in everything),
        remark=_remark(finalists, ranking) if ranking.noisy else None,
        sizes=case.sizes,
        environment=tuning.environment,
        file=str(file),
        seconds=time.perf_counter() - started,
    )


def _try_out(ways: Sequence[Way], tryout: Tryout, deadline: float) -> None:
    """Those of many threads first; what has not begun at the deadline is left out, but not before one was of use."""
    for way in sorted(ways, key=lambda way: -way.threads):
        if not tryout.seconds or time.perf_counter() < deadline:
            tryout.add(way)
    if not tryout.seconds:
        raise ParityError(f"Nothing runs {ways[0].bundle} within its bounds. {ways[0]}: {tryout.refused[ways[0]]}")


def _finding(way: Way, tryout: Tryout, medians: Mapping[Way, float], intervals: Mapping[Way, Interval]) -> Finding:
    return Finding(
        runtime=way.runtime,
        variant=way.variant,
        hint=way.hint,
        threads=way.threads,
        state=_state(way, tryout),
        first_seconds=tryout.seconds.get(way),
        seconds=medians.get(way),
        times_fastest=intervals.get(way),
        reason=tryout.refused.get(way),
    )


def _state(way: Way, tryout: Tryout) -> State:
    if way in tryout.refused:
        return "refused"
    if way in tryout.workers:
        return "ranked"
    return "slow" if way in tryout.seconds else "not tried"


def _sizes(manifest: Manifest, batch: int, given: Mapping[str, int]) -> dict[str, int]:
    usual = {name: axis.opt for name, axis in manifest.axes.items() if name != "batch"}
    for name in given:
        if name not in usual:
            raise UsageError(f"There is no axis {name!r} to give a size; there is {', '.join(usual) or 'none'}.")
    sizes = {"batch": batch, **usual, **given}
    for name, axis in manifest.axes.items():
        if problem := axis.problem(sizes[name]):
            raise UsageError(f"{name} is {sizes[name]}; expected {problem}.")
    return sizes


def _require_cache(path: Path) -> None:
    """Fail before the work, not after it."""
    trial = path.with_suffix(".trial")
    try:
        write_whole(trial, b"")
        trial.unlink()
    except OSError as error:
        raise PerceiverDeployError(
            f"The result of tuning is kept in {path.parent}, which cannot be written: {error.strerror or error}. "
            "Set PERCEIVER_DEPLOY_CACHE to a folder that can."
        ) from error


def _remark(finalists: Sequence[Way], ranking: Ranking) -> str:
    widest = max(ranking.tied, key=lambda index: ranking.intervals[index].high)
    interval = ranking.intervals[widest]
    return (
        f"This machine is too noisy to rank: {finalists[widest]} takes {interval.low:.2f} to {interval.high:.2f} times "
        f"as long as {finalists[ranking.fastest]}. Of those that cannot be told apart the simplest was kept. "
        "Tune again when the machine is quiet, or with more --seconds."
    )
