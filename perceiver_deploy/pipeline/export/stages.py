"""The stages of a model that an export writes, and the graph of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
from torch import nn

from perceiver_deploy._version import __version__
from perceiver_deploy.bundle.bundle import Staging
from perceiver_deploy.bundle.manifest import Axis, RuntimeName, Signature, Stage, StageName, graph_file
from perceiver_deploy.errors import ExportError, UsageError
from perceiver_deploy.export.compatibility import DEFAULT_RUNTIMES
from perceiver_deploy.export.description import GraphDescription, describe_graph
from perceiver_deploy.export.graph.files import stored_bytes, write_graph
from perceiver_deploy.export.options import AXES, GraphOptions
from perceiver_deploy.export.trace import trace_model
from perceiver_deploy.model.stages import stage_module
from perceiver_deploy.progress import log

SplitMode = Literal["beside", "only"]
"""Whether encoder and decoder are written beside the whole model, or instead of it."""

_METADATA = "perceiver_deploy."


@dataclass(frozen=True)
class ExportedStage:
    """A stage of a model: the module that is traced, and what it takes and gives."""

    name: StageName
    module: nn.Module
    signature: Signature


@dataclass(frozen=True)
class ExportedGraph(GraphDescription):
    """The ONNX file of a stage: where, its size with external data, and what it consists of."""

    file: str
    bytes: int


def stages_of(model: nn.Module, signature: Signature, split: SplitMode | None) -> list[ExportedStage]:
    """The stages to export, the whole model first.

    Raises:
        ExportError: the model is to be split and does not say how.
    """
    full = ExportedStage("full", model, signature)
    if split is None:
        return [full]
    signatures = getattr(model, "stages", None)
    if not isinstance(signatures, dict) or signatures.keys() != {"encoder", "decoder"}:
        raise ExportError(
            f"{type(model).__name__} has no property `stages` with the signatures of `encoder` and `decoder`, so it "
            "cannot be split. Give it one, with methods `encode` and `decode`, or export it whole."
        )
    names: tuple[StageName, StageName] = ("encoder", "decoder")
    parts = [ExportedStage(name, stage_module(model, name), signatures[name]) for name in names]
    return parts if split == "only" else [full, *parts]


def specs_of(signature: Signature, stages: Sequence[ExportedStage]) -> dict[StageName, Stage]:
    """Inputs and outputs of each stage, and of `full` even where it is not written."""
    return {"full": signature.stage, **{stage.name: stage.signature.stage for stage in stages}}


def axes_of_stages(signature: Signature, stages: Sequence[ExportedStage]) -> dict[str, Axis]:
    """The axes of the whole model and those that only a stage has."""
    return signature.axes | {name: axis for stage in stages for name, axis in stage.signature.axes.items()}


def runtimes_for(stages: Sequence[ExportedStage], named: Sequence[RuntimeName] | None) -> tuple[RuntimeName, ...]:
    """The runtimes named, or by default those that read the graphs: TensorRT has no 16-bit integers, as sound has.

    Raises:
        UsageError: a runtime is named that does not read the graphs.
    """
    has_sound = any(spec.dtype == "int16" for stage in stages for spec in stage.signature.stage.inputs)
    refused = [name for name in named or DEFAULT_RUNTIMES if has_sound and name.startswith("tensorrt")]
    if named is None:
        return tuple(name for name in DEFAULT_RUNTIMES if name not in refused)
    if refused:
        raise UsageError(
            f"{refused[0]} has no 16-bit integers, which the raw input 'pcm' is made of. Name other runtimes with "
            "--for, or export without --raw-inputs."
        )
    return tuple(dict.fromkeys(named))


def write_stage(stage: ExportedStage, staging: Staging, variant: str, options: GraphOptions) -> ExportedGraph:
    """Trace a stage into its file.

    Raises:
        ExportError: the stage cannot be traced, or its operators cannot be written in the opset.
    """
    log.info("Tracing %s of %s to ONNX opset %d", stage.name, stage.signature.task, options.opset)
    graph, axes = trace_model(stage.module, stage.signature, options), stage.signature.axes
    _stamp(graph, stage)
    file = graph_file(variant, stage.name)
    write_graph(graph, staging.path(file), options.external_above)
    described = vars(describe_graph(graph, axes))
    return ExportedGraph(file=file, bytes=stored_bytes(staging.root / file), **described)


def _stamp(graph: ir.Model, stage: ExportedStage) -> None:
    graph.producer_name, graph.producer_version = "perceiver-deploy", __version__
    graph.metadata_props[_METADATA + "task"] = stage.signature.task
    graph.metadata_props[_METADATA + "stage"] = stage.name
    graph.metadata_props[AXES] = json.dumps({name: axis.model_dump() for name, axis in stage.signature.axes.items()})
