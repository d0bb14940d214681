"""How fast is INT8 on this CPU beside transformers' eager model and the other ways of quantising it?

Full-size models are randomly initialised Hugging Face models of the published configurations. Ours are made by the
verbs `export`, of fourier and flow for CPUs alone, and `convert`, with its defaults and with `--for cpu`;
peers take transformers' model through torch.onnx.export: onnxruntime's dynamic INT8 (constants folded first), OpenVINO
in bf16 on processors that compute in it, NNCF's post-training INT8 in an environment of its own. All run in turn,
batch 1, with our graph's matrix products alone in float32 and int8 (the limits). Shipped models run on a row of their
own data, a text without padding, beside our eager model, in turns of 101 runs of which the first does not count; ours
with static shapes and one thread too. Writes results/cpu_peers.json after each model.

    python benchmarks/cpu_peers.py [MODEL ...] [--threads 2] [--output FILE] [--folder FOLDER [--prepare]]

With `--folder`, what is made stays there and is not made again; `--prepare` makes it and measures nothing, so that a
machine needs to be idle for the measurement alone.

Models: fourier, language, language-256, learned, conv, flow, digits, sentiment (the default: all).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from peers.cpu_plans import MODELS, FullSize, Shipped
from peers.cpu_verdicts import EAGER, OURS, judge_targets, report
from peers.environments import NNCF, NotInstalledError
from peers.measuring import RIGHT, Case, Timing, brief, time_beside
from peers.plans import FULL
from peers.sources import Bf16Source, EagerSource, Gemm, GemmSource, GraphSource, StaticSource

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Precision
from perceiver_deploy.bundle.samples import load_sample
from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.errors import PerceiverDeployError
from perceiver_deploy.evaluate.speed.workers import Source, Worker
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.checks.bounds import BOUNDS
from perceiver_deploy.runtimes.checks.inputs import axis_sizes
from perceiver_deploy.runtimes.cpu.openvino import native_hints
from perceiver_deploy.runtimes.way import Way

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "cpu_peers.json"
_TIMEOUT = 1800
_PEERS_EXPORTER = "dynamo-static"
"""Whose graph the peers take; see `export_peers.py`."""


@dataclass
class Measured:
    """What is run by name, its precision, why others could not be made, and the case that all run on."""

    case: Case
    sources: dict[str, Source]
    limits: dict[str, GemmSource] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def precision(self, name: str) -> Precision:
        """That of a candidate: it decides how far its outputs may be off."""
        source = self.sources[name]
        if isinstance(source, Way | StaticSource):
            return Bundle.open(source.bundle).variant(source.variant).precision
        return "bf16" if isinstance(source, Bf16Source) else "int8" if isinstance(source, GraphSource) else "fp32"


class FullSizeModel:
    """Makes a full-size model, ours and the peers', in a folder."""

    def __init__(self, plan: FullSize, folder: Path, threads: int) -> None:
        self._plan, self._folder, self._threads = plan, folder, threads
        self._class_name, self._sizes = FULL[plan.plan].class_name, FULL[plan.plan].usual

    def make(self) -> Measured:
        """Everything there is to run."""
        if not (self._folder / "usual.npz").exists():
            log.info("%s: making the checkpoint and what transformers gives", self._plan.plan)
            self._python("peers.prepare", "full", self._plan.plan, str(self._folder), str(self._plan.calibration))
        sample = load_sample(self._folder / "usual.npz")
        measured = Measured(
            Case(self._sizes, sample.inputs, sample.float32),
            {EAGER: EagerSource(self._class_name, self._folder / "checkpoint")},
        )
        bundle, calibration = self._folder / "bundle", self._folder / "calibration.npz"
        measured.sources |= make_ours(
            str(self._folder / "checkpoint"), bundle, str(calibration), self._threads, self._plan.export
        )
        graph = bundle / Bundle.open(bundle).variant("fp32").files["full"]
        gemms = self._python("peers.graph_facts", str(graph), json.dumps(dict(self._sizes)))["gemms"]
        products = tuple(Gemm(**gemm) for gemm in gemms)
        measured.limits = {"float32": GemmSource(products), "int8": GemmSource(products, "int8")}
        for peer in self._plan.peers:
            log.info("%s: making %s", self._plan.plan, peer)
            try:
                measured.sources[peer] = self._make_peer(peer, self._plain_graph())
            except (subprocess.SubprocessError, NotInstalledError, PerceiverDeployError) as error:
                measured.failed[peer] = brief((getattr(error, "stderr", None) or str(error)).strip()[-400:])
        return measured

    def _plain_graph(self) -> Path:
        """Transformers' model as torch.onnx.export writes it."""
        file = self._folder / _PEERS_EXPORTER / "model.onnx"
        if not file.exists():
            took = self._python("peers.export_one", _PEERS_EXPORTER, self._class_name, str(self._folder))
            if "error" in took:
                raise PerceiverDeployError(f"torch.onnx.export failed: {took['error']}")
        return file

    def _make_peer(self, peer: str, plain: Path) -> Source:
        if peer == "openvino bf16":
            if "bf16" not in native_hints():
                raise PerceiverDeployError("This processor does not compute in bf16; OpenVINO takes minutes a run.")
            return Bf16Source(plain)
        signature = self._folder / "signature.json"
        if peer == "onnxruntime dynamic int8":
            target = self._folder / "dynamic" / "model.onnx"
            if not target.exists():
                self._python("peers.quantize_dynamic", str(plain), str(target))
            return GraphSource(peer, "onnxruntime", target, signature)
        target = self._folder / "nncf" / "model.xml"
        script, calibration = str(HERE / "peers" / "quantize_nncf.py"), str(self._folder / "calibration.npz")
        if not target.exists():
            run([str(NNCF.python()), script, str(plain), str(target), calibration], self._threads, PYTHONPATH="")
        return GraphSource(peer, "openvino", target, signature)

    def _python(self, module: str, *arguments: str) -> Any:
        path = os.pathsep.join([str(HERE), str(HERE.parent)])
        output = run([sys.executable, "-m", module, *arguments], self._threads, PYTHONPATH=path)
        return json.loads(lines[-1]) if (lines := output.strip().splitlines()) else None


def make_shipped(plan: Shipped, folder: Path, threads: int) -> Measured:
    """A shipped model on the first row of its test set, beside eager."""
    log.info("%s: making our bundle", plan.checkpoint)
    bundle = folder / "bundle"
    ours = make_ours(plan.checkpoint, bundle, plan.data, threads)
    for variant in Bundle.open(bundle).manifest.variants:
        ours[f"{OURS} {variant} in openvino, static shapes, 1 thread"] = StaticSource(bundle, variant)
    inputs = without_padding(load_dataset(plan.data).test.rows(slice(0, 1)))
    eager = Way(bundle, "torch", "fp32")
    with Worker[Source](eager, threads) as worker:
        expected = worker.run(inputs)
    sizes = axis_sizes(inputs, Bundle.open(bundle).manifest.stages["full"].inputs)
    return Measured(Case(sizes, inputs, expected), {EAGER: eager, **ours})


def without_padding(row: Arrays) -> Arrays:
    """One row as it comes when it comes alone: data sets pad texts to one length."""
    mask = row.get("attention_mask")
    return row if mask is None else {name: np.ascontiguousarray(array[:, : mask.sum()]) for name, array in row.items()}


def make_ours(
    checkpoint: str, bundle: Path, calibration: str, threads: int, export: Sequence[str] = ()
) -> dict[str, Source]:
    """A bundle by our verbs, `export` with these options, and every variant of it in every CPU runtime, by name."""
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    verb = [sys.executable, "-m", "perceiver_deploy.cli"]
    if not bundle.exists():
        log.info("making %s", bundle)
        run([*verb, "export", checkpoint, "-o", str(bundle), "--no-validate", *export], threads, PYTHONPATH=path)
    convert = [*verb, "convert", str(bundle), "--precision", "int8", "--calibration", calibration]
    for variant, options in (("int8", []), ("int8-cpu", ["--for", "cpu"])):
        if variant not in Bundle.open(bundle).manifest.variants:
            run([*convert, *options], threads, PYTHONPATH=path)
    return {
        f"{OURS} {variant} in {runtime}": Way(bundle, runtime, variant)
        for variant in Bundle.open(bundle).manifest.variants
        for runtime in ("onnxruntime", "openvino")
    }


def run(command: list[str], threads: int, **variables: str) -> str:
    """What a program prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", **variables}
    return subprocess.run(  # noqa: S603 - our own programs
        command, check=True, capture_output=True, text=True, timeout=_TIMEOUT, env=environment
    ).stdout


def make(name: str, threads: int, folder: Path) -> Measured:
    """What there is to run of one model."""
    plan = MODELS[name]
    if isinstance(plan, Shipped):
        return make_shipped(plan, folder, threads)
    return FullSizeModel(plan, folder, threads).make()


def measure(name: str, measured: Measured, threads: int) -> dict[str, Any]:
    """The figures of one model."""
    started = time.perf_counter()
    plan = MODELS[name]
    sources = [*measured.sources.values(), *measured.limits.values()]
    fresh = isinstance(plan, FullSize) and plan.fresh
    burst = plan.burst if isinstance(plan, Shipped) else 1 + fresh
    timings = time_beside(sources, measured.case.inputs, threads=threads, rounds=plan.rounds, fresh=fresh, burst=burst)
    candidates: dict[str, Any] = {peer: {"error": why, "right": False} for peer, why in measured.failed.items()}
    for candidate, source in measured.sources.items():
        precision = measured.precision(candidate)
        bound = RIGHT if precision == "fp32" else BOUNDS[precision]
        candidates[candidate] = {"precision": precision, **timings[source].to_json(measured.case, bound)}
    found = {
        "sizes": dict(measured.case.sizes),
        "threads": threads,
        "rounds": plan.rounds,
        "process": "a new one for each run, its second" if fresh else "one for all runs",
        "runs_a_turn": burst,
        "export_options": list(plan.export) if isinstance(plan, FullSize) else [],
        "environment": describe_environment(),
        "candidates": candidates,
        "limits": {dtype: limit_figures(limit, timings[limit]) for dtype, limit in measured.limits.items()},
    }
    return {**found, "targets": judge_targets(plan.targets, found), "total_seconds": time.perf_counter() - started}


def limit_figures(source: GemmSource, timing: Timing) -> dict[str, float]:
    """How long the graph's matrix products take alone."""
    if timing.error is not None:
        raise PerceiverDeployError(f"{source} failed: {timing.error}")
    seconds, operations = float(np.median(timing.samples)), sum(gemm.flops for gemm in source.gemms)
    return {"seconds": seconds, "operations": operations, "operations_per_second": operations / seconds}


def main() -> None:
    """Run the models that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--threads", type=int, default=2, help="for every candidate")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--folder", type=Path, help="where to make and keep the models")
    parser.add_argument("--prepare", action="store_true", help="make them and measure nothing")
    options = parser.parse_args()
    if unknown := {*options.models} - {*MODELS}:
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel("INFO")
    failed = []
    for model in options.models or MODELS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) if options.folder is None else options.folder / model
            folder.mkdir(parents=True, exist_ok=True)
            try:
                measured = make(model, options.threads, folder)
                if options.prepare:
                    continue
                found = measure(model, measured, options.threads)
            except (PerceiverDeployError, subprocess.SubprocessError) as error:
                failed.append(model)
                log.error("%s was not finished: %s\n%s", model, error, getattr(error, "stderr", None) or "")
                continue
        print("\n".join(report(model, found)), flush=True)
        document = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {"models": {}}
        document["models"][model] = found
        unfinished = options.output.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(options.output)
    if failed:
        sys.exit(f"Not finished: {', '.join(failed)}. Models that were measured are in {options.output}.")


if __name__ == "__main__":
    main()
