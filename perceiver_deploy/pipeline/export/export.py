"""Export: checkpoint to bundle, behind the parity gate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from torch import nn

from perceiver_deploy._version import __version__
from perceiver_deploy.bundle.bundle import Staging, ensure_absent, new_bundle
from perceiver_deploy.bundle.manifest import Manifest, RuntimeName, Signature, StageName, Variant, graph_file
from perceiver_deploy.bundle.recipe import VariantRecipe
from perceiver_deploy.errors import ExportError, ParityError, UsageError
from perceiver_deploy.evaluate.parity.reference import Reference
from perceiver_deploy.evaluate.parity.verdicts import Verdict, failure_text
from perceiver_deploy.export.attention.fusibility import choose_form, require_suited
from perceiver_deploy.export.compatibility import DEFAULT_RUNTIMES, require_readable
from perceiver_deploy.export.options import BY_ROW, GraphOptions
from perceiver_deploy.export.passes.grids.by_row import KEYS, QUERIES
from perceiver_deploy.export.passes.grids.large_grids import LEAST_SCORES, LEFT
from perceiver_deploy.model.checkpoints.load import Form, describe_origin, find_checkpoint, load_checkpoint
from perceiver_deploy.model.checkpoints.own import CONFIG_NAME, save_weights
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.raw.building import raw_model
from perceiver_deploy.model.raw.wrapping import RawModel
from perceiver_deploy.model.tasks.catalogue import PerceiverModel
from perceiver_deploy.pipeline.export.gate import GateResult, keep_evidence, run_gate, write_samples
from perceiver_deploy.pipeline.export.stages import (
    ExportedGraph,
    ExportedStage,
    SplitMode,
    axes_of_stages,
    runtimes_for,
    specs_of,
    stages_of,
    write_stage,
)
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.catalogue import CPU_RUNTIMES
from perceiver_deploy.runtimes.cpu.onnxruntime import open_graphs

GATE_SECONDS = 120.0

_VARIANT = "fp32"


@dataclass(frozen=True)
class ExportResult:
    """What an export did. `verdicts` is empty when the gate was skipped; `capped` names cases left out for time."""

    bundle: str
    task: str
    parameters: int
    graphs: Mapping[StageName, ExportedGraph]
    verdicts: Sequence[Verdict]
    capped: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            **self.__dict__,
            "graphs": {name: asdict(graph) for name, graph in self.graphs.items()},
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
        }


def export_model(
    model_or_checkpoint: nn.Module | str | Path,
    path: str | Path,
    *,
    form: Form | None = None,
    split: SplitMode | None = None,
    force: bool = False,
    validate: bool = True,
    weights: bool = True,
    gate_seconds: float = GATE_SECONDS,
    options: GraphOptions | None = None,
    runtimes: Sequence[RuntimeName] | None = None,
    raw_inputs: bool = False,
) -> ExportResult:
    """Write a bundle with the `fp32` variant.

    Args:
        model_or_checkpoint: a model, or the path, shipped name or hub name of a checkpoint. A module of your own built
            from our parts needs a `signature` (see `manifest.Signature`; its task is "custom") and returns a
            dict of named outputs; its bundle holds no source model, and is validated by its golden samples.
        path: the bundle to write.
        form: whose form the checkpoint is in; auto-detected by default.
        split: write the stages `encoder` and `decoder` too, or instead; a module of your own needs `stages` for that
            (see `model.stages`).
        force: replace a bundle that is there.
        validate: run the gate: onnxruntime against eager float64 over the grid. It also makes the golden samples,
            so without it there are none.
        weights: put the source model's weights in the bundle.
        gate_seconds: time the gate's reference may take; cases beyond it are left out and named.
        options: how the graphs are written.
        runtimes: those that the variant is for, by default all that can read it; each must read the opset that the
            options name.
        raw_inputs: let the graph take raw data, its preprocessing folded in.

    Raises:
        UsageError: an opset that is not exported, that a runtime does not read, or a model that has no raw inputs.
        CheckpointError, BundleError, ExportError: nothing was written.
        ParityError: the gate failed; the evidence is in `PATH.failed/`.
    """
    path = Path(path)
    options, readers = options or GraphOptions(), DEFAULT_RUNTIMES if runtimes is None else runtimes
    require_readable(options.opset, readers)
    require_suited(options, readers)
    chosen = choose_form(options, readers)
    ensure_absent(path, replace=force)
    model, source = _load(model_or_checkpoint, form)
    signature, config = _describe(model)
    traced = _raw(model, config, split) if raw_inputs else model
    signature = cast(Signature, traced.signature)
    stages = stages_of(traced, signature, split)
    suited = runtimes_for(stages, runtimes)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with new_bundle(path, replace=force) as staging:
        with _in_eval_mode(traced):
            graphs = {stage.name: write_stage(stage, staging, _VARIANT, chosen) for stage in stages}
        _report_large_grids(options, readers, graphs)
        gate = GateResult()
        if validate:
            gate = _pass_gate(path, traced, signature, stages, config, staging, gate_seconds)
            write_samples(staging, gate.samples)
        if config is not None:
            staging.path(CONFIG_NAME).write_text(config.to_json(), encoding="utf-8")
            if weights:
                save_weights(model, staging.root)
        provenance = _provenance(source, parameters, chosen, gate)
        staging.finish(_manifest(signature, stages, config, graphs, suited, provenance))
    return ExportResult(
        bundle=str(path),
        task=signature.task,
        parameters=parameters,
        graphs=graphs,
        verdicts=[*gate.verdicts],
        capped=[str(case) for case in gate.capped],
    )


def _report_large_grids(
    options: GraphOptions, runtimes: Sequence[RuntimeName], graphs: Mapping[StageName, ExportedGraph]
) -> None:
    """Refuse a form that no attention took, and say where a form was not chosen that CPUs are faster with."""
    counts = {name: sum(graph.rewrites.get(name, 0) for graph in graphs.values()) for name in (KEYS, QUERIES, LEFT)}
    if options.attention in BY_ROW and not counts[KEYS] + counts[QUERIES]:
        raise ExportError(
            f"No attention of this model is over a grid of rows and columns with {LEAST_SCORES:,} scores or more "
            f"at the axes' opt sizes, which --attention {options.attention} is for. Leave --attention out."
        )
    if options.attention == "auto" and counts[LEFT] and set(runtimes) & set(CPU_RUNTIMES):
        log.info(
            "%d attentions are over a large grid. They are written for GPUs too; a bundle for CPUs alone "
            "(--for openvino, --for onnxruntime) computes them row by row, in less time and memory",
            counts[LEFT],
        )


def _pass_gate(
    path: Path,
    model: nn.Module,
    signature: Signature,
    stages: Sequence[ExportedStage],
    config: PerceiverConfig | None,
    staging: Staging,
    seconds: float,
) -> GateResult:
    """Judge the graphs that were written.

    Raises:
        ParityError: the gate failed; its evidence is kept beside `path`.
    """
    files = {stage.name: staging.root / graph_file(_VARIANT, stage.name) for stage in stages}
    reference, preprocessing = Reference(model, signature), None if config is None else config.preprocessing
    with open_graphs(files, specs_of(signature, stages), axes_of_stages(signature, stages)) as session:
        gate = run_gate(reference, session, signature, preprocessing, seconds)
    if gate.failed is not None:
        evidence = keep_evidence(path, [*files.values()], gate.failed, gate.verdicts)
        raise ParityError(f"{failure_text(gate.verdicts)} No bundle was written; {evidence}.")
    return gate


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
            "attribute or property `signature` of type perceiver_deploy.bundle.manifest.Signature."
        )
    ours = isinstance(config, PerceiverConfig) and signature.task != "custom"
    return signature, config if ours else None


def _raw(model: nn.Module, config: PerceiverConfig | None, split: SplitMode | None) -> RawModel:
    if split is not None:
        raise UsageError(
            "Raw inputs and the stages encoder and decoder do not go together: the stages take preprocessed arrays. "
            "Leave out --raw-inputs, or --split and --split-only."
        )
    if config is None:
        raise UsageError(
            f"{type(model).__name__} is a module of your own, whose preprocessing is not known here: it has no raw "
            "inputs. Put the preprocessing into its forward, or leave raw_inputs out."
        )
    return raw_model(cast(PerceiverModel, model))


@contextlib.contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _provenance(source: dict[str, Any], parameters: int, options: GraphOptions, gate: GateResult) -> dict[str, Any]:
    return {
        "perceiver_deploy": __version__,
        "torch": version("torch"),
        "onnx_ir": version("onnx-ir"),
        "onnxscript": version("onnxscript"),
        "opset": options.opset,
        "parameters": parameters,
        "source": source,
        "gate": "passed" if gate.verdicts else "skipped",
    }


def _manifest(
    signature: Signature,
    stages: Sequence[ExportedStage],
    config: PerceiverConfig | None,
    graphs: Mapping[StageName, ExportedGraph],
    runtimes: tuple[RuntimeName, ...],
    provenance: dict[str, Any],
) -> Manifest:
    records = {
        name: {key: value for key, value in asdict(graph).items() if key not in ("file", "bytes")}
        for name, graph in graphs.items()
    }
    variant = Variant(
        precision="fp32",
        runtimes=runtimes,
        files={name: graph.file for name, graph in graphs.items()},
        recipe=VariantRecipe.model_validate({"graphs": records}),
    )
    return Manifest(
        task=signature.task,
        axes=axes_of_stages(signature, stages),
        stages=specs_of(signature, stages),
        variants={_VARIANT: variant},
        preprocessing=None if config is None else config.preprocessing,
        labels=None if config is None else config.labels,
        task_labels=None if config is None else config.task_labels,
        provenance=provenance,
    )
