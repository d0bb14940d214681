"""How fast are our engines on this GPU beside PyTorch and onnxruntime, and how near to what its peak rates allow?

Eager PyTorch and torch.compile in fp32 and fp16, onnxruntime's CUDA, TensorRT and TensorRT-RTX providers, and native
engines of TensorRT and TensorRT-RTX, with and without CUDA graphs, in fp32, fp16 and int8. All candidates of a
precision run in turn, one process each. End-to-end time is from host arrays to host arrays by one clock; device time is
the sum of kernels by CUPTI. Sweeps over batch and length. Outputs are compared with eager fp32. What cannot run is
listed with the reason. Writes results/gpu.json after each case.

    python benchmarks/gpu.py [MODEL ...] [--seconds 5]

Models: those of engines.py (the default: digits, sentiment, full-fourier, full-language). Needs PyTorch with CUDA.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from engines import FULL_SIZE, PRECISIONS, export
from peers.gpu_sources import DeviceTimeSource, SessionSource, TorchSource

from perceiver_deploy import build_engine, convert_bundle
from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import opt_sizes
from perceiver_deploy.errors import PerceiverDeployError, UsageError
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.evaluate.parity.verdicts import compare
from perceiver_deploy.evaluate.speed.workers import Worker, time_round_robin
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.pipeline.roofline import device_named, latency_bounds
from perceiver_deploy.runtimes.catalogue import GPU_RUNTIMES
from perceiver_deploy.runtimes.nvidia.families import FAMILIES
from perceiver_deploy.runtimes.nvidia.gpu import Gpu, driver_version, require_gpu
from perceiver_deploy.runtimes.nvidia.requirements import missing_pieces

RESULTS = Path(__file__).parent / "results" / "gpu.json"
DEFAULT = ("digits", "sentiment", "full-fourier", "full-language")
BATCHES = (1, 4, 16, 64)
LENGTHS = (128, 512, 1024, 2048)

Source = TorchSource | SessionSource


def main() -> None:
    """Measure the models that were named and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=DEFAULT)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each interleaved case")
    options = parser.parse_args()
    try:
        gpu = require_gpu("benchmarks/gpu.py")
    except PerceiverDeployError as error:
        sys.exit(str(error))
    document: dict[str, Any] = {"environment": {**describe_environment(), "gpu": gpu.name, "driver": driver_version()}}
    document["models"] = {}
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            bundle = export(model, Path(folder))
            refused = prepare(model, bundle, gpu)
            found = document["models"][model] = {"not_run": refused, "bounds": bounds(bundle, gpu), "cases": []}
            for sizes in sweep(bundle):
                found["cases"].append(measure(bundle, sizes, refused, options.seconds))
                RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
                print(model, sizes, {name: row.get("median") for name, row in found["cases"][-1]["rows"].items()})


def prepare(model: str, bundle: Path, gpu: Gpu) -> dict[str, str]:
    """Add variants and engines; what could not be made or cannot run, with the reason."""
    refused = {runtime: "; ".join(pieces) for runtime in GPU_RUNTIMES if (pieces := missing_pieces(runtime))}
    calibration = str(bundle.parent / "calibration.npz") if model in FULL_SIZE else model
    for precision in PRECISIONS[1:]:
        convert_bundle(bundle, precision=precision, calibration=calibration)
    shapes = [f"batch=1:1:{BATCHES[-1]}"]
    for family in FAMILIES:
        capabilities = [gpu.compute_capability] if family == "tensorrt-rtx" else None
        for precision in PRECISIONS:
            try:
                build_engine(bundle, engine=family, variant=precision, shapes=shapes, compute_capabilities=capabilities)
            except PerceiverDeployError as error:
                refused.setdefault(f"{family} {precision}", str(error))
    return refused


def bounds(bundle: Path, gpu: Gpu) -> list[dict[str, Any]] | None:
    """The least times by this GPU's data sheet, or None where there are no figures of it."""
    words = gpu.name.removeprefix("NVIDIA ").replace("GeForce ", "").split()
    for name in ("".join(words), "".join(words[:2]), words[0]):
        try:
            return [bound.to_json() for bound in latency_bounds(Bundle.open(bundle), device_named(name))]
        except UsageError:
            continue
    return None


def sweep(bundle: Path) -> Iterator[dict[str, int]]:
    """Batches at opt sizes, then lengths at batch 1 where the model has a length."""
    axes = Bundle.open(bundle).manifest.axes
    usual = opt_sizes(axes)
    yield from ({**usual, "batch": batch} for batch in BATCHES)
    if "length" in axes:
        lengths = [length for length in LENGTHS if axes["length"].problem(length) is None and length != usual["length"]]
        yield from ({**usual, "batch": 1, "length": length} for length in lengths)


def sources(bundle: Path, precision: str) -> list[Source]:
    """Candidates of one precision."""
    found: list[Source] = []
    if precision != "int8":
        dtype = "float32" if precision == "fp32" else "float16"
        found += [TorchSource(bundle, dtype, compiled) for compiled in (False, True)]  # type: ignore[arg-type]
    found += [SessionSource(bundle, runtime, precision) for runtime in GPU_RUNTIMES]
    found += [SessionSource(bundle, family, precision, cuda_graph=True) for family in FAMILIES]
    return found


def measure(bundle: Path, sizes: dict[str, int], refused: dict[str, str], seconds: float) -> dict[str, Any]:
    """Every candidate on inputs of these sizes."""
    manifest = Bundle.open(bundle).manifest
    inputs = make_inputs(manifest.signature, Case("gpu", sizes), manifest.preprocessing)
    rows: dict[str, dict[str, Any]] = {}
    expected: Arrays | None = None
    for precision in PRECISIONS:
        with ExitStack() as stack:
            workers = []
            for source in sources(bundle, precision):
                if isinstance(source, SessionSource) and {source.runtime, f"{source.runtime} {precision}"} & set(
                    refused
                ):
                    continue
                try:
                    worker = stack.enter_context(Worker(source, None))
                    outputs = worker.run(inputs)
                except PerceiverDeployError as error:
                    rows[str(source)] = {"error": str(error)}
                    continue
                expected = expected or outputs  # eager fp32 is the first of all
                errors = [compare(outputs[name], wanted).relative_l2 for name, wanted in expected.items()]
                rows[str(source)] = {"precision": precision, "relative_l2": max(errors)}
                workers.append(worker)
            for source, samples in time_round_robin(workers, inputs, seconds=seconds).items():
                rows[str(source)] |= {"median": float(np.median(samples)), "samples": samples}
        for worker in workers:
            rows[str(worker.name)]["device"] = device_time(worker.name, inputs)
    return {"sizes": sizes, "rows": rows}


def device_time(source: Source, inputs: Arrays) -> dict[str, Any]:
    """Seconds of kernels and of copies on the GPU, by a process with a profiler."""
    try:
        with Worker(DeviceTimeSource(source), None) as worker:
            return {kind: float(seconds) for kind, seconds in worker.run(inputs).items()}
    except PerceiverDeployError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    main()
