"""How fast, how large and how exact is each precision on this processor, beside transformers' eager model?

Full-size models are randomly initialised Hugging Face models of the published configurations, exported for CPUs and
converted with each precision: `int8` and `int8-cpu`, whose sums cannot saturate, `int8-vnni`, whose weights use all
levels, and `int8-weights`. All run in turn, batch 1, in both runtimes. Writes results/processors.json, one entry for
each kind of processor: medians, the 95 % interval of the speed-up, peak memory, size, and the distances to eager and to
the variant's own graph.

    python benchmarks/processors.py [MODEL ...] [--threads 2] [--rounds 9] --folder FOLDER [--prepare]

Models: fourier, language (the default: both), learned, conv, flow. To measure as on a processor without INT8 dot
products, where this one lets CPUID be masked:

    cc -O1 -shared -fPIC tests/processors/mask.c -o mask.so
    PERCEIVER_DEPLOY_PROCESSOR=avx2 LD_PRELOAD=$PWD/mask.so python benchmarks/processors.py --folder FOLDER
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from peers.by_processor import record
from peers.measuring import Timing, time_beside
from peers.plans import FULL
from peers.sources import EagerSource

from perceiver_deploy import convert_bundle, export_model, load
from perceiver_deploy.arrays import relative_l2
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.samples import load_sample
from perceiver_deploy.errors import ParityError
from perceiver_deploy.evaluate.speed.ranking import LEAST_ROUNDS, median_interval
from perceiver_deploy.evaluate.speed.workers import Source
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.conformance import known_text
from perceiver_deploy.runtimes.way import Way

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "processors.json"
MODELS = ("fourier", "language", "learned", "conv", "flow")
USUAL = MODELS[:2]
CALIBRATION_SAMPLES = {"flow": 2}
"""16 of the other models."""


def prepare(model: str, folder: Path) -> Path:
    """The bundle with all its variants; what is there is not made again."""
    bundle, calibration = folder / "b", folder / "calibration.npz"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "usual.npz").exists():
        arguments = ["-m", "peers.prepare", "full", model, str(folder), str(CALIBRATION_SAMPLES.get(model, 16))]
        subprocess.run([sys.executable, *arguments], cwd=HERE, check=True)  # noqa: S603
    if not bundle.exists():
        export_model(folder / "checkpoint", bundle, runtimes=["onnxruntime", "openvino"])
    there = Bundle.open(bundle).manifest.variants
    if "int8-weights" not in there:
        convert_bundle(bundle, precision="int8-weights")
    for target in (None, "cpu", "vnni"):
        if ("int8" if target is None else f"int8-{target}") not in there:
            convert_bundle(bundle, calibration=calibration, target=target)
    return bundle


def measure(model: str, folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """All candidates of a model in one interleaved run."""
    path = prepare(model, folder)
    bundle, sample = Bundle.open(path), load_sample(folder / "usual.npz")
    (output, expected), *_ = sample.float32.items()
    eager = EagerSource(FULL[model].class_name, folder / "checkpoint")
    sources: list[Source] = [eager]
    refused = {}
    for variant in bundle.manifest.variants:
        for runtime in ("onnxruntime", "openvino"):
            try:
                load(path, runtime, variant, threads=threads).close()  # asks for the verdict before anything is timed
            except ParityError as error:
                refused[f"{runtime} {variant}"] = str(error)
                continue
            sources.append(Way(path, runtime, variant))
    timings = time_beside(sources, sample.inputs, threads=threads, rounds=rounds, fresh=False)
    base = timings[eager].samples

    def row(source: Source, timing: Timing) -> dict[str, Any]:
        found = timing.outputs[output]
        found = found[:, : expected.shape[1]] if found.ndim == 3 else found
        interval = median_interval([theirs / ours for theirs, ours in zip(base, timing.samples, strict=True)])
        figures = {
            "median": float(np.median(timing.samples)),
            "speed_up": float(np.median(base) / np.median(timing.samples)),
            "speed_up_interval": [interval.low, interval.high],
            "samples": timing.samples,
            "peak_bytes": timing.peak_bytes,
            "off_eager": relative_l2(found, expected),
        }
        if isinstance(source, Way):
            file = bundle.variant(source.variant).files["full"]
            figures["stored_bytes"] = bundle.manifest.stored_bytes(file)
            figures["conformance"] = known_text(bundle, source.variant, source.runtime)  # type: ignore[arg-type]
        return figures

    rows = {str(source): row(source, timing) for source, timing in timings.items()}
    return {"threads": threads, "rounds": rounds, "candidates": rows, "refused": refused}


def main() -> None:
    """Measure the models that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--prepare", action="store_true", help="make the bundles and measure nothing")
    options = parser.parse_args()
    if options.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds is {options.rounds}; an interval of the median needs at least {LEAST_ROUNDS}")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel("INFO")
    for model in options.models or USUAL:
        if options.prepare:
            prepare(model, options.folder / model)
            continue
        found = measure(model, options.folder / model, options.threads, options.rounds)
        record(RESULTS, model, found)
        for name, row in sorted(found["candidates"].items(), key=lambda item: item[1]["median"]):
            print(f"{model} {name}: {row['median']:.3f} s, {row['speed_up']:.2f}x, off {row['off_eager']:.1e}")


if __name__ == "__main__":
    main()
