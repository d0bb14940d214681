"""Export: checkpoint to bundle, behind the parity gate."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch import nn

import perceiver_deploy
from perceiver_deploy.bundle import ensure_absent, new_bundle
from perceiver_deploy.errors import ExportError, ParityError
from perceiver_deploy.evaluate.parity import Verdict, failure_text
from perceiver_deploy.evaluate.reference import Reference
from perceiver_deploy.export.operators import count_operators
from perceiver_deploy.export.options import REWRITES, GraphOptions
from perceiver_deploy.export.trace import OPSET, trace_model
from perceiver_deploy.manifest import Manifest, Signature, Variant
from perceiver_deploy.model.checkpoints.loading import Form, describe_origin, find_checkpoint, load_checkpoint
from perceiver_deploy.model.checkpoints.native import CONFIG_NAME, save_weights
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.pipeline.export_gate import keep_evidence, run_gate, write_samples
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.onnxruntime import OnnxRuntimeSession

GATE_SECONDS = 120.0
ONNX_FILE = "onnx/fp32.onnx"
_METADATA = "perceiver_deploy."


@dataclass
class ExportResult:
    """What an export did. `verdicts` is empty when the gate was skipped; `capped` names cases left out for time."""

    bundle: str
    task: str
    parameters: int
    operators: dict[str, int]
    rewrites: dict[str, int]
    onnx_bytes: int = 0
    verdicts: list[Verdict] = field(default_factory=list)
    capped: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {**self.__dict__, "verdicts": [verdict.to_json() for verdict in self.verdicts]}


def export_model(
    model_or_checkpoint: nn.Module | str | Path,
    path: str | Path,
    *,
    form: Form | None = None,
    force: bool = False,
    validate: bool = True,
    weights: bool = True,
    gate_seconds: float = GATE_SECONDS,
) -> ExportResult:
    """Write a bundle with the `fp32` variant.

    Args:
        model_or_checkpoint: a model, or the path, shipped name or hub name of a checkpoint. A module of your own built
            from our parts needs a `signature` (see `manifest.Signature`; its task is "custom") and returns a
            dict of named outputs; its bundle holds no source model, and is validated by its golden samples.
        path: the bundle to write.
        form: whose form the checkpoint is in; found out by default.
        force: replace a bundle that is there.
        validate: run the gate: onnxruntime against eager float64 over the grid.
        weights: put the source model's weights in the bundle.
        gate_seconds: time the gate's reference may take; cases beyond it are left out and named.

    Raises:
        CheckpointError, BundleError, ExportError: nothing was written.
        ParityError: the gate failed; the evidence is in `PATH.failed/`.
    """
    path = Path(path)
    ensure_absent(path, replace=force)
    model, source = _load(model_or_checkpoint, form)
    signature, config = _describe(model)
    log.info("Tracing %s to ONNX opset %d", signature.task, OPSET)
    with _in_eval_mode(model):
        graph = trace_model(model, signature, GraphOptions())
    _stamp(graph, signature)
    result = ExportResult(
        bundle=str(path),
        task=signature.task,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        operators=count_operators(graph),
        rewrites=json.loads(graph.metadata_props[REWRITES]),
    )
    with new_bundle(path, replace=force) as staging:
        file = staging.path(ONNX_FILE)
        ir.save(graph, file)
        result.onnx_bytes = file.stat().st_size
        reference, preprocessing = Reference(model, signature), None if config is None else config.preprocessing
        with OnnxRuntimeSession(file, signature.stage, signature.axes) as session:
            gate = run_gate(reference, session, signature, preprocessing, gate_seconds if validate else None)
        result.verdicts, result.capped = gate.verdicts, [str(case) for case in gate.capped]
        if gate.failed is not None:
            evidence = keep_evidence(path, file, gate.failed, gate.verdicts)
            raise ParityError(f"{failure_text(gate.verdicts)} No bundle was written; {evidence}.")
        write_samples(staging, gate.samples)
        if config is not None:
            staging.path(CONFIG_NAME).write_text(config.to_json(), encoding="utf-8")
            if weights:
                save_weights(model, staging.root)
        staging.finish(_manifest(signature, config, result, source))
    return result


def _load(model_or_checkpoint: nn.Module | str | Path, form: Form | None) -> tuple[nn.Module, dict[str, Any]]:
    """The model, and where it comes from without naming this machine."""
    if not isinstance(model_or_checkpoint, str | Path):
        return model_or_checkpoint, {"name": type(model_or_checkpoint).__name__}
    checkpoint = find_checkpoint(model_or_checkpoint)
    log.info("Loading %s", model_or_checkpoint)
    return load_checkpoint(checkpoint, form), describe_origin(checkpoint)


def _describe(model: nn.Module) -> tuple[Signature, PerceiverConfig | None]:
    """Signature of a model, and its configuration where it is one of ours."""
    signature, config = getattr(model, "signature", None), getattr(model, "config", None)
    if not isinstance(signature, Signature):
        raise ExportError(
            f"{type(model).__name__} has no `signature`, so its inputs, outputs and axes are not known. Give it an "
            "attribute or property `signature` of type perceiver_deploy.manifest.Signature."
        )
    ours = isinstance(config, PerceiverConfig) and signature.task != "custom"
    return signature, config if ours else None


@contextlib.contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _stamp(graph: ir.Model, signature: Signature) -> None:
    graph.producer_name, graph.producer_version = "perceiver-deploy", perceiver_deploy.__version__
    graph.metadata_props[_METADATA + "task"] = signature.task
    graph.metadata_props[_METADATA + "stage"] = "full"
    graph.metadata_props[_METADATA + "axes"] = json.dumps(
        {name: axis.model_dump() for name, axis in signature.axes.items()}
    )


def _manifest(
    signature: Signature, config: PerceiverConfig | None, result: ExportResult, source: dict[str, Any]
) -> Manifest:
    return Manifest(
        task=signature.task,
        axes=signature.axes,
        stages={"full": signature.stage},
        variants={
            "fp32": Variant(
                precision="fp32",
                runtimes=("onnxruntime", "openvino", "tensorrt-rtx"),
                files={"full": ONNX_FILE},
                recipe={"operators": result.operators, "rewrites": result.rewrites},
            )
        },
        preprocessing=None if config is None else config.preprocessing,
        labels=None if config is None else config.labels,
        task_labels=None if config is None else config.task_labels,
        provenance={
            "perceiver_deploy": perceiver_deploy.__version__,
            "torch": version("torch"),
            "onnx_ir": version("onnx-ir"),
            "onnxscript": version("onnxscript"),
            "opset": OPSET,
            "parameters": result.parameters,
            "source": source,
            "gate": "passed" if result.verdicts else "skipped",
        },
    )
