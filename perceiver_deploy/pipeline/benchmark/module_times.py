"""Where the time goes, by layer, in eager and in every variant in onnxruntime and OpenVINO."""

from __future__ import annotations

import statistics
from collections import defaultdict
from functools import partial

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import opt_sizes
from perceiver_deploy.errors import UsageError, requires
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.evaluate.report.benchmark_document import OTHER, CandidateTimes, LayerTimes
from perceiver_deploy.evaluate.speed.node_times import Times, eager_times, onnxruntime_times, openvino_times, repeated
from perceiver_deploy.pipeline.benchmark.rounds import candidate_names
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.settings import RuntimeSettings
from perceiver_deploy.runtimes.way import Way

_PROFILERS = {"onnxruntime": onnxruntime_times, "openvino": openvino_times}


def time_modules(bundle: Bundle, threads: int | None = None) -> LayerTimes:
    """Time the layers of eager and of every variant, in onnxruntime and OpenVINO, at the axes' `opt` sizes.

    Raises:
        UsageError: the bundle has no graph of the whole model.
        MissingError: torch or a runtime is not installed.
        BundleError: the bundle was exported without its weights.
    """
    manifest = bundle.manifest
    variants = [name for name, variant in manifest.variants.items() if "full" in variant.files]
    if not variants:
        raise UsageError(f"{bundle.path} has no graph of the whole model to time. Export the checkpoint with --split.")
    sizes = opt_sizes(manifest.axes)
    inputs = make_inputs(manifest.signature, Case("timing", sizes), manifest.preprocessing)
    found = []
    for name in candidate_names(bundle):
        if not name.is_eager and (name.runtime not in _PROFILERS or name.variant not in variants):
            continue
        log.info("Timing the layers of %s", name)
        with name.open(threads) as session:
            whole = statistics.median(repeated(partial(session.run, inputs)))
        layers = _eager(bundle, inputs, threads) if name.is_eager else _graph(bundle, name, inputs, threads)
        found.append(CandidateTimes(candidate=str(name), layers=layers, whole=whole))
    return LayerTimes(bundle=str(bundle.path), sizes=sizes, candidates=tuple(found))


def _graph(bundle: Bundle, name: Way, inputs: Arrays, threads: int | None) -> Times:
    with requires("export", "Timing layers"):
        import onnx_ir as ir

        from perceiver_deploy.export.graph.costs import reading_module
        from perceiver_deploy.export.graph.origin import layer_of
    path = bundle.file(bundle.variant(name.variant).files["full"])
    layers = dict[str, str]()
    for node in ir.load(path).graph:
        layer = layer_of(reading_module(node))
        layers[node.name or ""] = layer
        layers |= {value.name or "": layer for value in node.outputs}
    totals: defaultdict[str, float] = defaultdict(float)
    for kernel, seconds in _PROFILERS[name.runtime](path, inputs, threads).items():
        totals[_layer_of_kernel(kernel, layers)] += seconds
    order = dict.fromkeys([*layers.values(), OTHER])
    return {layer: totals[layer] for layer in order if totals[layer]}


def _layer_of_kernel(kernel: str, layers: dict[str, str]) -> str:
    """Engines add to the names of nodes that they fuse or convert; what is left when such an end is cut off counts."""
    while kernel and kernel not in layers:
        kernel = kernel[: max(0, *(kernel.rfind(mark) for mark in "/_."))]
    return layers.get(kernel, OTHER)


def _eager(bundle: Bundle, inputs: Arrays, threads: int | None) -> Times:
    with requires("export", "Timing layers"):
        from perceiver_deploy.export.graph.origin import layer_of
        from perceiver_deploy.runtimes.eager import EagerSession, load_source_model
    model, manifest = load_source_model(bundle), bundle.manifest
    settings = RuntimeSettings(threads=threads)
    layers = {name for name, _ in model.named_modules() if name and layer_of(name) == name}
    with EagerSession(model, manifest.stages["full"], manifest.axes, settings=settings) as session:
        found = eager_times(model, lambda: session.run(inputs), layers)
    return {name or layer_of(""): seconds for name, seconds in found.items()}
