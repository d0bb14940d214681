"""Benchmark reports for tests, made of samples that a test gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from perceiver_deploy.evaluate.accuracy.figures import AccuracyFigures, MetricFigures
from perceiver_deploy.evaluate.report.benchmark_document import (
    BenchmarkReport,
    CaseRanking,
    Latency,
    Measurement,
    Settings,
)
from perceiver_deploy.evaluate.speed.ranking import median_interval, rank
from perceiver_deploy.statistics import wilson_interval

ROUNDS = 40


def steady(seconds: float, spread: float = 0.01, seed: int = 0) -> list[float]:
    """Samples around `seconds`, off by a share of `spread` in the mean square."""
    return list(seconds * (1 + spread * np.random.default_rng(seed).standard_normal(ROUNDS)))


def make_report(
    samples: Mapping[str, Sequence[float]] | None = None,
    hits: Mapping[str, Sequence[int]] | None = None,
    lengths: Sequence[int] = (8,),
) -> BenchmarkReport:
    """A report of the candidates that `samples` names, eager first, the same at each batch size (1, 4) and length."""
    samples = samples or {"eager fp32": steady(0.01), "onnxruntime fp32": steady(0.004, seed=1)}
    ranking = rank([*samples.values()])
    names = [*samples]
    return BenchmarkReport(
        environment={"processor": "tests", "threads": 1, "packages": {"onnxruntime": "1.32.0"}},
        command="perceiver-deploy benchmark digits.bundle --data digits",
        settings=Settings(data="digits", batches=(1, 4), sizes=(), seconds=1, threads=1),
        measurements=tuple(
            _measurement(name, own, samples["eager fp32"], (hits or {}).get(name, [1] * 19 + [0]), lengths)
            for name, own in samples.items()
        ),
        rankings=tuple(
            CaseRanking(
                bundle="digits.bundle",
                batch=batch,
                sizes={"length": length},
                fastest=names[ranking.fastest],
                tied=tuple(names[index] for index in ranking.tied),
                noisy=ranking.noisy,
            )
            for length in lengths
            for batch in (1, 4)
        ),
    )


def _measurement(
    name: str, own: Sequence[float], eager: Sequence[float], hits: Sequence[int], lengths: Sequence[int]
) -> Measurement:
    runtime, variant = name.split()
    return Measurement(
        bundle="digits.bundle",
        name=name,
        runtime="torch" if runtime == "eager" else runtime,
        variant=variant,
        file_bytes=400_000,
        load_seconds=0.5,
        first_seconds=0.02,
        accuracy=AccuracyFigures(metrics=(_metric(hits),), agreement=1.0, relative_l2=1e-7),
        latencies=tuple(_latency(batch, length, own, eager) for length in lengths for batch in (1, 4)),
    )


def _metric(hits: Sequence[int]) -> MetricFigures:
    share = float(np.mean(hits))
    return MetricFigures(
        metric="top-1 accuracy",
        unit="%",
        higher_is_better=True,
        value=share,
        interval=wilson_interval(share, len(hits)),
        examples=len(hits),
        drop=0.0,
        drop_interval=(0.0, 0.0),
        significant=False,
        scores=tuple(map(float, hits)),
    )


def _latency(batch: int, length: int, samples: Sequence[float], eager: Sequence[float]) -> Latency:
    own = [batch * length / 8 * seconds for seconds in samples]
    ratios = [one / mine for one, mine in zip(eager, samples, strict=True)]
    interval = median_interval(ratios)
    p50, p90, p99 = (float(np.percentile(own, percent)) for percent in (50, 90, 99))
    return Latency(
        batch=batch,
        sizes={"length": length},
        p50=p50,
        p90=p90,
        p99=p99,
        throughput=batch / p50,
        speed_up=float(np.median(ratios)),
        speed_up_interval=(interval.low, interval.high),
        warm_up=6,
        stable=True,
        peak_bytes=150_000_000,
        relative_l2=1e-7,
        samples=tuple(own),
    )
