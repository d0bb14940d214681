"""Demo: the whole pipeline on the shipped digits checkpoint."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.pipeline.benchmark.benchmark import BenchmarkResult, benchmark_bundles
from perceiver_deploy.pipeline.build import BuildResult, build_engine
from perceiver_deploy.pipeline.convert.convert import ConvertResult, convert_bundle
from perceiver_deploy.pipeline.export.export import ExportResult, export_model
from perceiver_deploy.pipeline.validate.validate import ValidationResult, validate_bundle
from perceiver_deploy.progress import log

CHECKPOINT = DATA = "digits"
THREADS = 1
"""The model is so small that threads cost more than they give, and one is measured truly on a busy machine."""


@dataclass(frozen=True)
class DemoResult:
    """The result of every step. `engine` is None where TensorRT-RTX is not installed; `engine_absent` says so."""

    export: ExportResult
    conversion: ConvertResult
    engine: BuildResult | None
    engine_absent: str | None
    validation: ValidationResult
    benchmark: BenchmarkResult
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {name: value.to_json() if hasattr(value, "to_json") else value for name, value in self.__dict__.items()}


def run_demo(output: str | Path, *, threads: int = THREADS, force: bool = False) -> DemoResult:
    """Export, convert to INT8, build an engine, validate and benchmark, in the folder `output`."""
    started = time.perf_counter()
    bundle = Path(output) / f"{CHECKPOINT}.bundle"
    log.info("1/5 Export")
    exported = export_model(CHECKPOINT, bundle, force=force)
    log.info("2/5 Convert to INT8")
    converted = convert_bundle(bundle, precision="int8", calibration=DATA)
    engine, absent = None, None
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        log.info("3/5 Build a TensorRT-RTX engine")
        engine = build_engine(bundle, engine="tensorrt-rtx", variant="int8")
    else:
        absent = "not built, TensorRT-RTX is not installed: pip install 'perceiver-deploy[rtx]'"
    log.info("4/5 Validate")
    validation = validate_bundle(bundle, threads=threads)
    log.info("5/5 Benchmark")
    benchmark = benchmark_bundles([bundle], data=DATA, threads=threads)
    seconds = time.perf_counter() - started
    return DemoResult(exported, converted, engine, absent, validation, benchmark, seconds)
