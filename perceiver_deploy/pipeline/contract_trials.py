"""Graphs beside eager on held-out data, and a file of what was found, so that a killed search goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle import Bundle
from perceiver_deploy.cache import write_whole
from perceiver_deploy.data.datasets import Split
from perceiver_deploy.data.metrics import Metric, collect_outputs
from perceiver_deploy.errors import MissingError
from perceiver_deploy.evaluate.accuracy import Drop, measure_drops
from perceiver_deploy.evaluate.agreement import agreement_metrics
from perceiver_deploy.evaluate.contract import Judgement
from perceiver_deploy.evaluate.parity import compare
from perceiver_deploy.manifest import RuntimeName, StageName
from perceiver_deploy.pipeline.conversion import OPENERS
from perceiver_deploy.pipeline.held_out import HeldOut
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.loading import installed_runtimes, load

RANKING_ROWS = 64
"""Held-out examples that a layer's share of the error is measured on: it is a mean over all their outputs."""
_DROPS = TypeAdapter(dict[str, tuple[Drop, ...]])
_MOST_DB = 300.0
"""For an error of zero, which has no number in JSON."""


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
    return Judgement(_DROPS.validate_python(document))


def _numbers(judged: Judgement) -> dict[str, list[dict[str, Any]]]:
    """A plain dict with all numbers as they are, infinities too, which Python's JSON has words for."""
    return {runtime: [asdict(drop) for drop in drops] for runtime, drops in judged.drops.items()}


class Trials:
    """Runs graphs on held-out examples, `rows` at a time, beside eager float32."""

    def __init__(self, bundle: Bundle, held_out: HeldOut, runtimes: tuple[RuntimeName, ...], rows: int) -> None:
        self._bundle = bundle
        self._held_out = held_out
        self._runtimes = runtimes
        self._rows = rows
        self._ranking = held_out.split.spread(RANKING_ROWS)

    def judge(self, files: Mapping[StageName, Path]) -> Judgement:
        """What graphs lose in each runtime."""
        split = self._held_out.split
        drops: dict[str, tuple[Drop, ...]] = {}
        for runtime in self._runtimes:
            outputs = self._run(runtime, files, split)
            drops[runtime] = measure_drops(outputs, self._eager, split, self._metrics)
        return Judgement(drops)

    def sqnr(self, files: Mapping[StageName, Path]) -> float:
        """Signal to noise of graphs' outputs in dB against eager's: the mean over the outputs."""
        outputs = self._run(self._runtimes[0], files, self._ranking)
        found = [min(compare(outputs[name], wanted).sqnr_db, _MOST_DB) for name, wanted in self._eager_ranking.items()]
        return float(np.mean(found))

    @cached_property
    def _eager(self) -> Arrays:
        log.info("Running eager on %d held-out examples of %s", len(self._held_out.split), self._held_out.name)
        return self._run_eager(self._held_out.split)

    @cached_property
    def _eager_ranking(self) -> Arrays:
        return self._run_eager(self._ranking)

    @cached_property
    def _metrics(self) -> tuple[Metric, ...]:
        return self._held_out.metrics or agreement_metrics(self._eager)

    def _run_eager(self, split: Split) -> Arrays:
        with load(self._bundle, runtime="torch") as session:
            return collect_outputs(session.run, split, self._rows)

    def _run(self, runtime: RuntimeName, files: Mapping[StageName, Path], split: Split) -> Arrays:
        manifest = self._bundle.manifest
        with OPENERS[runtime](files, manifest.stages, manifest.axes) as session:
            return collect_outputs(session.run, split, self._rows)


class Findings:
    """Results of the steps of a search by name, written to a file after each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = {}
        if path.exists():
            try:
                self._found = dict(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError) as error:
                log.warning("What an earlier search found in %s cannot be used (%s)", path, error)
            else:
                log.info("The search goes on after %d steps that an earlier one did", len(self._found))

    def sqnr(self, step: str, measure: Callable[[], float]) -> float:
        """The figure of a step, measured if it is not known."""
        return float(self._step(step, measure))

    def judgement(self, step: str, judge: Callable[[], Judgement]) -> Judgement:
        """The judgement of a step, made if it is not known."""
        return Judgement(_DROPS.validate_python(self._step(step, lambda: _numbers(judge()))))

    def remove(self) -> None:
        """The search has ended."""
        self._path.unlink(missing_ok=True)

    def _step(self, step: str, work: Callable[[], Any]) -> Any:
        if step not in self._found:
            self._found[step] = work()
            write_whole(self._path, json.dumps(self._found).encode())
        return self._found[step]
