"""Tune: the fastest runtime, variant, thread count and hint that keep the contract on this machine, by measurement."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Manifest
from perceiver_deploy.cache import write_whole
from perceiver_deploy.errors import BundleError, MissingError, ParityError, PerceiverDeployError, UsageError
from perceiver_deploy.evaluate.accuracy.contract import MaxDrop
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.evaluate.speed.ranking import LEAST_ROUNDS, Interval, Ranking, rank
from perceiver_deploy.evaluate.speed.workers import time_round_robin
from perceiver_deploy.pipeline.samples.held_out import HeldOut, held_out_data
from perceiver_deploy.pipeline.tune.accuracy import accuracy_check
from perceiver_deploy.pipeline.tune.tryout import AccuracyCheck, Tryout, ways_to_run
from perceiver_deploy.pipeline.validate.samples import golden_samples
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.tuned import (
    Environment,
    Finding,
    Question,
    State,
    Tuning,
    read_tuning,
    tuning_path,
    write_tuning,
)
from perceiver_deploy.runtimes.way import Way

SECONDS = 60.0
_TRYOUT_SHARE = 0.6
"""Share of the time for opening, checking and first timing; the rest ranks those that are left."""

_SETTLE = 0.05
"""Seconds between runs. The threads of onnxruntime spin for 40 ms after one (measured, 1.32), on cores that the next
candidate needs; a candidate of one thread has none that could."""


@dataclass(frozen=True)
class TuneResult:
    """The choice, all findings with the choice first, and the file that `load` reads them from.

    `measured` is False where a tuning that was kept still holds; `remark` says when the machine was too noisy to rank.
    """

    bundle: str
    chosen: str
    measured: bool
    findings: tuple[Finding, ...]
    remark: str | None
    sizes: dict[str, int]
    environment: Environment
    file: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        findings = [finding.model_dump() for finding in self.findings]
        return {**vars(self), "findings": findings, "environment": self.environment.model_dump()}


def tune_bundle(
    bundle: str | Path,
    *,
    batch: int = 1,
    sizes: Mapping[str, int] | None = None,
    static_shapes: bool = False,
    seconds: float = SECONDS,
    max_drop: MaxDrop | str | None = None,
    data: str | Path | None = None,
    again: bool = False,
) -> TuneResult:
    """Measure every way of running a bundle here, and keep the best in the user's cache, where `load` finds it.

    What was measured for the same question in the same environment is not measured twice.

    Args:
        bundle: the bundle.
        batch: batch size to tune for.
        sizes: sizes of other axes; those not given have their usual size.
        static_shapes: measure OpenVINO with static shapes too (see `RuntimeSettings`): for a service whose inputs have
            few sizes.
        seconds: time to take. What is left to try when six tenths have passed is left out and named, and what is left
            in is run at least six times.
        max_drop: by how much the task's metric may fall against eager (`MaxDrop`, or "0.5", or "1%"), on top of the
            numeric bounds. Without `data`, reduced precision counts only where the manifest says that it was kept.
        data: what `max_drop` is measured on, as `held_out` of `convert_bundle`; this takes its time beside `seconds`.
        again: measure even so.

    Raises:
        UsageError: an axis or size that the bundle does not have, or `data` without `max_drop`.
        BundleError: no such bundle, or it has no golden samples.
        MissingError: no runtime is installed that any variant is for.
        ParityError: nothing keeps the contract.
        PerceiverDeployError: the cache cannot be written.
    """
    started = time.perf_counter()
    opened = Bundle.open(bundle)
    file = tuning_path(opened.manifest)
    contract = MaxDrop.parse(max_drop) if isinstance(max_drop, str) else max_drop
    held_out = _held_out(opened, contract, data)
    question = Question(
        sizes=_sizes(opened.manifest, batch, sizes or {}),
        static_shapes=static_shapes,
        max_drop=None if contract is None else str(contract),
        data=None if data is None else str(data),
        data_sha256=None if held_out is None else held_out.sha256,
    )
    _require_cache(file)
    kept = None if again else _kept(opened, question)
    tuning = kept or _measure(opened, question, accuracy_check(opened, contract, held_out), seconds)
    if kept is None:
        write_tuning(opened.manifest, tuning)
    return TuneResult(
        bundle=str(bundle),
        chosen=str(tuning.findings[0]),
        measured=kept is None,
        findings=tuning.findings,
        remark=tuning.remark,
        sizes=question.sizes,
        environment=tuning.environment,
        file=str(file),
        seconds=time.perf_counter() - started,
    )


def _held_out(bundle: Bundle, contract: MaxDrop | None, data: str | Path | None) -> HeldOut | None:
    if data is None:
        return None
    if contract is None:
        raise UsageError("data is what max_drop is measured on; give max_drop too, or leave data out.")
    return held_out_data(bundle, data, None)


def _kept(bundle: Bundle, question: Question) -> Tuning | None:
    """The tuning that answers the question here."""
    try:
        kept = read_tuning(bundle.manifest)
    except BundleError as error:
        log.info("%s All is measured again.", error)
        return None
    if kept is None or kept.question != question:
        return None
    if difference := kept.environment.difference(Environment.here()):
        log.info("Measuring again: %s", difference)
        return None
    return kept


def _measure(bundle: Bundle, question: Question, accuracy: AccuracyCheck | None, seconds: float) -> Tuning:
    started = time.perf_counter()
    ways = ways_to_run(bundle, static_shapes=question.static_shapes)
    if not ways:
        raise MissingError(
            "No runtime that this bundle is for is installed. Install them with: pip install 'perceiver-deploy[cpu]'"
        )
    inputs = make_inputs(bundle.manifest.signature, Case("tuning", question.sizes), bundle.manifest.preprocessing)
    tryout = Tryout(bundle, [*golden_samples(bundle)], inputs, accuracy)
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
    order += [way for way in ways if way not in order]
    intervals = dict(zip(finalists, ranking.intervals, strict=True))
    return Tuning(
        bundle=str(bundle.path.resolve()),
        environment=Environment.here(),
        question=question,
        findings=tuple(_finding(way, tryout, medians, intervals) for way in order),
        remark=_remark(finalists, ranking) if ranking.noisy else None,
    )


def _try_out(ways: Sequence[Way], tryout: Tryout, deadline: float) -> None:
    """Those of many threads first; what has not begun at the deadline is left out, but not before one was of use."""
    for way in sorted(ways, key=lambda way: -(way.settings.threads or 0)):
        if not tryout.seconds or time.perf_counter() < deadline:
            tryout.add(way)
    if not tryout.seconds:
        raise ParityError(f"Nothing runs {ways[0].bundle} within its bounds. {ways[0]}: {tryout.refused[ways[0]]}")


def _finding(way: Way, tryout: Tryout, medians: Mapping[Way, float], intervals: Mapping[Way, Interval]) -> Finding:
    interval, settings = intervals.get(way), way.settings
    return Finding(
        runtime=way.runtime,
        variant=way.variant,
        hint=settings.hint,
        static_shapes=settings.static_shapes,
        threads=settings.threads,
        state=_state(way, tryout),
        first_seconds=tryout.seconds.get(way),
        seconds=medians.get(way),
        times_fastest=None if interval is None else (interval.low, interval.high),
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
        f"as long as {finalists[ranking.fastest]}. The simplest of those that are statistically tied was kept. "
        "Tune again when the machine is quiet, or with more --seconds."
    )
