"""Graphs beside eager on held-out data, and a file of what was found, so that a killed search goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import RuntimeName, StageName
from perceiver_deploy.cache import write_whole
from perceiver_deploy.data.metrics import collect_outputs
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import MissingError
from perceiver_deploy.evaluate.accuracy.agreement import Sqnr, judge_outputs, measure_sqnr
from perceiver_deploy.evaluate.accuracy.contract import Judgement
from perceiver_deploy.evaluate.accuracy.losses import Loss
from perceiver_deploy.pipeline.convert.exact_outputs import exact_session
from perceiver_deploy.pipeline.convert.plan import OPENERS, OpenGraphs
from perceiver_deploy.pipeline.samples.held_out import HeldOut
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.catalogue import EAGER, installed_runtimes
from perceiver_deploy.runtimes.opening import load
from perceiver_deploy.runtimes.session import Session

RANKING_ROWS = 64
"""Held-out examples that a layer's share of the error is measured on: it is a mean over all their outputs."""
EXACT = "exact graph"
"""What a judgement calls graphs that are computed as they say, on no runtime: see `export.exact`."""
_OPENERS: dict[str, Callable[..., AbstractContextManager[Session]]] = {
    EXACT: exact_session,
    **dict[str, OpenGraphs](OPENERS.items()),
}
_Judged = dict[str, tuple[Loss | Sqnr, ...]]
_JUDGED = TypeAdapter(_Judged)
_Result = TypeVar("_Result")


def judging_runtimes(runtimes: tuple[RuntimeName, ...]) -> tuple[RuntimeName, ...]:
    """Of the runtimes that a variant is for, those that can run it here; onnxruntime for one that is for none of them.

    Raises:
        MissingError: a graph that onnxruntime does not read, where the others are not installed.
    """
    here = tuple(name for name in installed_runtimes() if name in runtimes)
    if here:
        return here
    if "openvino" in runtimes:
        raise MissingError("The contract of a bf16 variant is judged in OpenVINO, which is not installed here.")
    log.warning("Nothing here runs what the variant is for (%s); it is judged in onnxruntime", ", ".join(runtimes))
    return ("onnxruntime",)


def read_judgement(document: Any) -> Judgement:
    """What `Judgement.to_json` gave of one whose figures are all finite."""
    return Judgement(_JUDGED.validate_python(document))


class Trials:
    """Runs graphs on held-out examples, `rows` at a time, beside eager float32."""

    def __init__(self, bundle: Bundle, held_out: HeldOut, runtimes: tuple[RuntimeName, ...], rows: int) -> None:
        self._bundle = bundle
        self._held_out = held_out
        self._runtimes = runtimes
        self._rows = rows
        self._ranking = held_out.split.spread(RANKING_ROWS)

    def judge(self, files: Mapping[StageName, Path]) -> Judgement:
        """What graphs lose in each runtime, and computed exactly."""
        split = self._held_out.split
        return Judgement(
            {
                runtime: judge_outputs(self._run(runtime, files, split), self._eager, split, self._held_out.metrics)
                for runtime in (*self._runtimes, EXACT)
            }
        )

    def sqnr(self, files: Mapping[StageName, Path]) -> float:
        """Signal to noise of graphs' outputs in dB against eager's: the mean over the outputs."""
        outputs = self._run(self._runtimes[0], files, self._ranking)
        return float(np.mean([measure_sqnr(outputs[name], wanted) for name, wanted in self._eager_ranking.items()]))

    @cached_property
    def _eager(self) -> Arrays:
        log.info("Running eager on %d held-out examples of %s", len(self._held_out.split), self._held_out.name)
        return self._run_eager(self._held_out.split)

    @cached_property
    def _eager_ranking(self) -> Arrays:
        return self._run_eager(self._ranking)

    def _run_eager(self, split: Split) -> Arrays:
        with load(self._bundle, runtime=EAGER) as session:
            return collect_outputs(session.run, split, self._rows)

    def _run(self, runtime: str, files: Mapping[StageName, Path], split: Split) -> Arrays:
        manifest = self._bundle.manifest
        with _OPENERS[runtime](files, manifest.stages, manifest.axes) as session:
            return collect_outputs(session.run, split, self._rows)


class _Found(BaseModel):
    """Results by step, as they are in the file."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")
    sqnr_db: dict[str, float] = {}
    judged: dict[str, _Judged] = {}


class Findings:
    """Results of the steps of a search by name, written to a file after each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found = _Found()
        if path.exists():
            try:
                self._found = _Found.model_validate_json(path.read_bytes())
            except (OSError, ValueError) as error:
                log.warning("What an earlier search found in %s cannot be used (%s); it begins again", path, error)
            else:
                steps = len(self._found.sqnr_db) + len(self._found.judged)
                log.info("The search goes on after %d steps that an earlier one did", steps)

    def sqnr(self, step: str, measure: Callable[[], float]) -> float:
        """The figure of a step, measured if it is not known."""
        return self._step(self._found.sqnr_db, step, measure)

    def judgement(self, step: str, judge: Callable[[], Judgement]) -> Judgement:
        """The judgement of a step, made if it is not known."""
        found = self._step(
            self._found.judged, step, lambda: {runtime: tuple(found) for runtime, found in judge().found.items()}
        )
        return Judgement(found)

    def remove(self) -> None:
        """The search has ended."""
        self._path.unlink(missing_ok=True)

    def _step(self, known: dict[str, _Result], step: str, work: Callable[[], _Result]) -> _Result:
        if step not in known:
            known[step] = work()
            write_whole(self._path, self._found.model_dump_json().encode())
        return known[step]
