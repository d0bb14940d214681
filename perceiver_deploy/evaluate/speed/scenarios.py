"""MLPerf's scenarios, measured by its own LoadGen: who sends queries, and how time is counted, is theirs.

SingleStream sends the next query when the last was answered; MultiStream does so with 8 samples a query; Offline sends
all at once; Server sends queries at random (Poisson) and asks that 99 % of them are answered within a bound.
"""

from __future__ import annotations

import multiprocessing
import queue
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import Stage
from perceiver_deploy.errors import PerceiverDeployError, requires
from perceiver_deploy.runtimes.way import Way
from perceiver_deploy.strict import Strict

STREAMS = 8
"""Samples of a query of MultiStream."""
OFFLINE_BATCH = 32
LOADS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Rates that Server is tried at, as shares of what SingleStream reaches."""
BOUND_TIMES = 10
"""Server's bound on p99 where none is given, in medians of SingleStream."""
_WARM_UP = 3
_RATES = ("Completed samples per second", "Samples per second", "QPS w/ loadgen overhead")


class Scenario(Strict):
    """One of MLPerf's scenarios as its LoadGen measured it: seconds of a query, samples a second.

    `bound` is Server's on the 99th percentile, and `kept` whether that is within it.
    """

    name: str
    p50: float | None
    p90: float | None
    p99: float | None
    per_second: float
    bound: float | None = None
    kept: bool | None = None


@dataclass(frozen=True)
class _Test:
    """One test of LoadGen: samples are answered `batch` at a time, by one thread, in the order they came."""

    name: Way
    threads: int | None
    inputs: Arrays
    scenario: Literal["SingleStream", "MultiStream", "Offline", "Server"]
    batch: int
    seconds: float
    settings: Mapping[str, Any]


def run_scenarios(
    name: Way, threads: int | None, inputs: Arrays, stage: Stage, seconds: float, bound: float | None
) -> tuple[Scenario, ...]:
    """All four, each in a process of its own: LoadGen runs one test a process.

    Server has the highest of the rates `LOADS` at which the bound was kept; where it never was, the lowest, and it is
    not `kept`.

    Args:
        name: what runs.
        threads: of the candidate.
        inputs: the first example of them is what every query asks.
        stage: whose inputs they are.
        seconds: how long to test each at least.
        bound: in seconds; by default `BOUND_TIMES` the median of SingleStream.

    Raises:
        MissingError: LoadGen is not installed.
        PerceiverDeployError: a process ended.
    """
    with requires("loadgen", "Measuring MLPerf's scenarios"):
        import mlperf_loadgen  # noqa: F401 - used in the processes

    def run(scenario: Any, batch: int, **settings: Any) -> Scenario:
        rows = _repeat_first(inputs, stage, batch)
        return _in_a_process(_Test(name, threads, rows, scenario, batch, seconds, settings))

    single = run("SingleStream", 1)
    assert single.p50 is not None
    multi = run("MultiStream", STREAMS, multi_stream_samples_per_query=STREAMS)
    offline = run("Offline", OFFLINE_BATCH, offline_expected_qps=2 / single.p50)
    limit = BOUND_TIMES * single.p50 if bound is None else bound
    for load in LOADS:
        server = run("Server", 1, server_target_qps=load / single.p50, server_target_latency_ns=int(1e9 * limit))
        kept = server.p99 is not None and server.p99 <= limit
        server = server.model_copy(update={"bound": limit, "kept": kept})
        if kept:
            break
    return single, multi, offline, server


def _repeat_first(inputs: Arrays, stage: Stage, count: int) -> Arrays:
    """The first example, as often as asked for."""
    batched = {spec.name for spec in stage.inputs if spec.shape and spec.shape[0] == "batch"}
    return {name: np.repeat(array[:1], count, axis=0) if name in batched else array for name, array in inputs.items()}


def _in_a_process(test: _Test) -> Scenario:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, test), daemon=True)
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:
        process.join(10)
        raise PerceiverDeployError(
            f"The process of {test.name} ended in scenario {test.scenario} with exit code {process.exitcode}."
        ) from None
    process.join(10)
    if isinstance(answer, PerceiverDeployError):
        raise answer
    return read_summary(test.scenario, answer)


def _serve(connection: Connection, test: _Test) -> None:
    try:
        with test.name.open(test.threads) as session:
            for _ in range(_WARM_UP):
                session.run(test.inputs)
            connection.send(_summary(test, lambda: session.run(test.inputs)))
    except PerceiverDeployError as error:
        connection.send(error)


def _summary(test: _Test, run: Callable[[], Any]) -> str:
    """What LoadGen writes of the test."""
    import mlperf_loadgen as loadgen

    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, test.scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(1000 * test.seconds)
    settings.max_duration_ms = int(3000 * test.seconds)
    settings.min_query_count = 1
    for key, value in test.settings.items():
        setattr(settings, key, value)
    waiting: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()

    def answer() -> None:
        while (ids := waiting.get()) is not None:
            for start in range(0, len(ids), test.batch):
                run()
                done = [loadgen.QuerySampleResponse(each, 0, 0) for each in ids[start : start + test.batch]]
                loadgen.QuerySamplesComplete(done)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    system = loadgen.ConstructSUT(lambda samples: waiting.put([sample.id for sample in samples]), lambda: None)
    library = loadgen.ConstructQSL(OFFLINE_BATCH, OFFLINE_BATCH, lambda _: None, lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        logs, place = loadgen.LogSettings(), loadgen.LogOutputSettings()
        place.outdir, place.copy_summary_to_stdout = folder, False
        logs.log_output, logs.enable_trace = place, False
        loadgen.StartTestWithLogSettings(system, library, settings, logs)
        waiting.put(None)
        return (Path(folder) / "mlperf_log_summary.txt").read_text(encoding="utf-8")


def read_summary(scenario: str, summary: str) -> Scenario:
    """The figures of `mlperf_log_summary.txt`. Offline has no latencies: they would count from when all was sent."""
    figures = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in summary.splitlines())}
    if scenario == "Offline":
        return Scenario(name=scenario, p50=None, p90=None, p99=None, per_second=float(figures["Samples per second"]))
    p50, p90, p99 = (float(figures[f"{percent:.2f} percentile latency (ns)"]) / 1e9 for percent in (50, 90, 99))
    if scenario == "MultiStream":
        rate = STREAMS / p50
    else:
        rate = next(float(figures[name]) for name in _RATES if name in figures)
    return Scenario(name=scenario, p50=p50, p90=p90, p99=p99, per_second=rate)
