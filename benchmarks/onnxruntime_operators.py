"""Are onnxruntime's SkipLayerNormalization and FastGelu faster than what it makes of our graph itself?

Graphs of `export --attention onnxruntime`, as they are and with the operators written in, run in turn in one process
with one thread; seconds are medians, outputs are compared, and `operators` are those of the graph that onnxruntime runs
after its own fusions. FastGelu is the tanh form of GELU, which DeepMind's weights use: it is measured on the Fourier
model with that activation. Writes results/onnxruntime_operators.json. Takes about 6 minutes and 5 GB.

    python benchmarks/onnxruntime_operators.py [NAME ...]
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
import onnxruntime
import torch
from full_size_parity import make_inputs
from peers.huggingface import CONFIGURATIONS

from perceiver_deploy.evaluate.parity.verdicts import compare
from perceiver_deploy.export.graph.files import write_graph
from perceiver_deploy.export.graph.values import constant_array, sole_user
from perceiver_deploy.export.options import GraphOptions
from perceiver_deploy.export.trace import trace_model
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.model.checkpoints.huggingface.config import convert_config
from perceiver_deploy.model.checkpoints.load import find_checkpoint, load_checkpoint
from perceiver_deploy.model.tasks.catalogue import PerceiverModel, build_model

RESULTS = Path(__file__).parent / "results" / "onnxruntime_operators.json"
FOURIER, LANGUAGE = "PerceiverForImageClassificationFourier", "PerceiverForMaskedLM"
SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 45.0, 7, 100


def main() -> None:
    """Measure the named models (default: all) and write the results, keeping those of the others."""
    document = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"models": {}}
    for name in sys.argv[1:] or MODELS:
        document["models"][name] = measure(*MODELS[name]())
        document["environment"] = {**describe_environment(), "threads": 1}
        RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(document["models"][name]), flush=True)


def digits() -> tuple[PerceiverModel, dict[str, np.ndarray]]:
    """The shipped model on one digit's size."""
    pixels = np.random.default_rng(0).standard_normal((1, 3, 8, 8), dtype=np.float32)
    return load_checkpoint(find_checkpoint("digits")).eval(), {"pixel_values": pixels}


def published(name: str, activation: str = "gelu") -> tuple[PerceiverModel, dict[str, np.ndarray]]:
    """A published configuration with random weights, and one sample."""
    torch.manual_seed(0)
    config = convert_config({**CONFIGURATIONS[name], "architectures": [name]}, Path())
    semantics = dataclasses.replace(config.semantics, activation=activation)
    inputs = {key: value.numpy()[:1] for key, value in make_inputs(name).items()}
    return build_model(dataclasses.replace(config, semantics=semantics)).eval(), inputs


MODELS: dict[str, Callable[[], tuple[PerceiverModel, dict[str, np.ndarray]]]] = {
    "digits": digits,
    "language": lambda: published(LANGUAGE),
    "fourier": lambda: published(FOURIER),
    "fourier, tanh": lambda: published(FOURIER, "gelu_tanh"),
}


def measure(model: PerceiverModel, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Seconds of the graph as it is and with the operators, rewrites, and the operators that onnxruntime runs."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        graph = trace_model(model, model.signature, GraphOptions(attention="onnxruntime"))
        write_graph(graph, Path(folder) / "plain.onnx")
        rewrites = {"skip layer norms": skip_layer_norms(graph), "fast gelus": fast_gelus(graph)}
        graph.graph.opset_imports["com.microsoft"] = 1
        write_graph(graph, Path(folder) / "written.onnx")
        del graph
        sessions = {}
        for name in ("plain", "written"):
            sessions[name], operators = open_session(Path(folder) / f"{name}.onnx")
            figures[name] = {"operators": operators}
        figures["written"]["rewrites"] = rewrites
        seconds, outputs = run_in_turn(sessions, inputs)
    for name, found in seconds.items():
        figures[name] |= {"seconds": statistics.median(found), "runs": found}
    figures["written"]["relative_l2"] = compare(outputs["written"], outputs["plain"]).relative_l2
    figures["speed_up"] = figures["plain"]["seconds"] / figures["written"]["seconds"]
    return figures


def open_session(path: Path) -> tuple[onnxruntime.InferenceSession, dict[str, int]]:
    """A session of one thread, and the operators left after onnxruntime's own fusions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(options.optimized_model_filepath, load_external_data=False)
    Path(options.optimized_model_filepath).unlink()
    return session, dict(Counter(node.op_type for node in optimized.graph.node).most_common())


def run_in_turn(
    sessions: dict[str, onnxruntime.InferenceSession], inputs: dict[str, np.ndarray]
) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    """Raw seconds of each session, one run each in turn after one that does not count, and its first output."""
    outputs = {name: session.run(None, inputs)[0] for name, session in sessions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    begun = time.perf_counter()
    for round_ in range(MOST_ROUNDS):
        if round_ >= LEAST_ROUNDS and time.perf_counter() - begun > SECONDS:
            break
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(None, inputs)
            seconds[name].append(round(time.perf_counter() - started, 7))
    return seconds, outputs


def skip_layer_norms(model: ir.Model) -> int:
    """Write residual, its bias and the norm behind it as one operator, whose fourth result is the sum."""
    written = 0
    for norm in list(model.graph):
        add = norm.inputs[0].producer() if norm.op_type == "LayerNormalization" and norm.inputs[0] else None
        if add is None or add.op_type != "Add" or None in add.inputs or len(norm.inputs) != 3:
            continue
        first, second = add.inputs
        if first.shape is None or second.shape is None or first.shape != second.shape or len(first.shape) != 3:
            continue
        first, bias = without_bias(first)
        inputs = [first, second, *norm.inputs[1:], *([] if bias is None else [bias])]
        outputs = [result_like(norm), ir.Value(name=""), ir.Value(name=""), result_like(add)]
        epsilon = {"epsilon": norm.attributes.get_float("epsilon", 1e-5)}
        node = ir.node("SkipLayerNormalization", inputs, epsilon, domain="com.microsoft", outputs=outputs)
        node.name = f"{norm.name}/Skip"
        model.graph.insert_after(add, node)
        norm.outputs[0].replace_all_uses_with(outputs[0])
        add.outputs[0].replace_all_uses_with(outputs[3])
        written += 1
    common.RemoveUnusedNodesPass()(model)
    return written


def fast_gelus(model: ir.Model) -> int:
    """Write a bias and GELU's tanh form as one operator."""
    written = 0
    for gelu in list(model.graph):
        if gelu.op_type != "Gelu" or gelu.attributes.get_string("approximate", "none") != "tanh":
            continue
        source, bias = without_bias(gelu.inputs[0])
        inputs = [source] if bias is None else [source, bias]
        node = ir.node(
            "FastGelu", inputs, domain="com.microsoft", outputs=[result_like(gelu)], name=f"{gelu.name}/Fast"
        )
        model.graph.insert_after(gelu, node)
        gelu.outputs[0].replace_all_uses_with(node.outputs[0])
        written += 1
    common.RemoveUnusedNodesPass()(model)
    return written


def without_bias(value: ir.Value) -> tuple[ir.Value, ir.Value | None]:
    """A value before a bias was added to it, where nothing else reads the sum, and the bias."""
    add = value.producer()
    if add is None or add.op_type != "Add" or sole_user(value) is None or add.inputs[0] is None:
        return value, None
    bias = constant_array(add.inputs[1])
    return (add.inputs[0], add.inputs[1]) if bias is not None and bias.ndim == 1 else (value, None)


def result_like(node: ir.Node) -> ir.Value:
    """A value like the first result of a node."""
    like = node.outputs[0]
    return ir.Value(name=f"{like.name}.fused", shape=like.shape, type=like.type)


if __name__ == "__main__":
    main()
