"""Inspect: what a bundle or an ONNX file takes, gives and consists of."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Manifest, Stage, StageName
from perceiver_deploy.errors import BundleError, requires
from perceiver_deploy.runtimes.catalogue import installed_runtimes
from perceiver_deploy.runtimes.conformance import known_text

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class TensorInfo:
    """Name, dtype and shape of an input or output."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class StageInfo:
    """What a stage takes and gives."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class GraphInfo:
    """One ONNX file: variant, stage, where, its size with external data, operators, and how often rewrites fired.

    `flops` are counted with the axes at their `opt` sizes; None for a file that is not ours, whose axes are not known.
    `modules` has what `export.costs.ModuleCost` has, `attentions` what `export.fusibility.AttentionInfo` has; they are
    empty for such a file and for variants whose recipe does not say. `kept` has the nodes that stay in a higher
    precision than their variant's, each with the reason. `saturation` has what `SaturationReport` has, where sums are
    taken in INT8 and the recipe says so.
    """

    name: str
    stage: str
    file: str
    bytes: int
    operators: dict[str, int]
    flops: int | None
    rewrites: dict[str, int]
    modules: list[dict[str, Any]]
    attentions: list[dict[str, Any]]
    kept: dict[str, str]
    saturation: dict[str, Any] | None


@dataclass(frozen=True)
class Inspection:
    """What `inspect` shows. `axes` maps a name to min, opt, max and multiple_of.

    `conformance` says by variant and runtime of the CPU whether it gives the numbers of its graph on this machine.

    `inputs` and `outputs` are those of the whole model, `stages` has those of the other stages.
    """

    path: str
    task: str | None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    stages: dict[str, StageInfo]
    axes: dict[str, dict[str, int | None]]
    parameters: int
    graphs: tuple[GraphInfo, ...]
    engines: tuple[str, ...]
    conformance: dict[str, dict[str, str]]
    labels: int
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def inspect_path(path: str | Path) -> Inspection:
    """Describe a bundle (from its manifest, without torch or onnx) or an ONNX file.

    Raises:
        BundleError: neither a bundle nor an ONNX file.
        MissingError: an ONNX file, and the packages that read it are not installed.
    """
    path = Path(path)
    return _inspect_onnx(path) if path.is_file() else _inspect_bundle(Bundle.open(path))


def _inspect_bundle(bundle: Bundle) -> Inspection:
    manifest = bundle.manifest
    stages: dict[str, StageInfo] = {name: _stage_info(stage) for name, stage in manifest.stages.items()}
    full = stages.pop("full")
    return Inspection(
        path=str(bundle.path),
        task=manifest.task,
        inputs=full.inputs,
        outputs=full.outputs,
        stages=stages,
        axes={name: axis.model_dump() for name, axis in manifest.axes.items()},
        parameters=manifest.provenance.get("parameters", 0),
        graphs=tuple(
            _graph_info(name, stage, file, manifest)
            for name, variant in manifest.variants.items()
            for stage, file in variant.files.items()
        ),
        engines=tuple(manifest.engines),
        conformance={name: _conformance(bundle, name) for name in manifest.variants},
        labels=len(manifest.labels or ()),
        provenance=manifest.provenance,
    )


def _conformance(bundle: Bundle, variant: str) -> dict[str, str]:
    suited = bundle.variant(variant).runtimes
    return {name: known_text(bundle, variant, name) for name in installed_runtimes() if name in suited}


def _stage_info(stage: Stage) -> StageInfo:
    inputs, outputs = (
        tuple(TensorInfo(spec.name, spec.dtype, spec.shape) for spec in specs)
        for specs in (stage.inputs, stage.outputs)
    )
    return StageInfo(inputs, outputs)


def _graph_info(name: str, stage: StageName, file: str, manifest: Manifest) -> GraphInfo:
    record = manifest.variants[name].recipe.graph(stage)
    return GraphInfo(
        name,
        stage,
        file,
        manifest.stored_bytes(file),
        record.operators,
        record.flops,
        record.rewrites,
        [module.model_dump() for module in record.modules],
        [attention.model_dump() for attention in record.attentions],
        record.kept,
        record.saturation,
    )


def _inspect_onnx(path: Path) -> Inspection:
    with requires("export", "Inspecting an ONNX file"):
        import onnx_ir as ir

        from perceiver_deploy.export.graph.files import stored_bytes
        from perceiver_deploy.export.graph.operators import count_operators, count_parameters
        from perceiver_deploy.export.options import REWRITES
    size = stored_bytes(path)  # refuses what is not an ONNX file, and weights that are not beside it
    try:
        model = ir.load(path)
        rewrites, modules, attentions = json.loads(model.metadata_props.get(REWRITES, "{}")), *_at_opt(model)
    except Exception as error:  # protobuf raises a family of its own
        raise BundleError(f"{path} cannot be read as an ONNX file ({error}). Give a bundle or an ONNX file.") from error
    return Inspection(
        path=str(path),
        task=model.metadata_props.get("perceiver_deploy.task"),
        inputs=tuple(_info(value) for value in model.graph.inputs),
        outputs=tuple(_info(value) for value in model.graph.outputs),
        stages={},
        axes={},
        parameters=count_parameters(model),
        graphs=(
            GraphInfo(
                model.graph.name or "graph",
                model.metadata_props.get("perceiver_deploy.stage", "full"),
                path.name,
                size,
                count_operators(model),
                sum(module["flops"] for module in modules) if modules else None,
                rewrites,
                modules,
                attentions,
                {},
                None,
            ),
        ),
        engines=(),
        conformance={},
        labels=0,
        provenance={
            "producer": model.producer_name,
            "version": model.producer_version,
            "opset": model.opset_imports.get(""),
        },
    )


def _at_opt(model: ir.Model) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Modules and attentions of a graph with the axes that its metadata describes."""
    from perceiver_deploy.export.attention.fusibility import list_attentions
    from perceiver_deploy.export.graph.costs import cost_by_module
    from perceiver_deploy.export.graph.origin import stated_axes

    axes = stated_axes(model)
    if not axes:
        return [], []
    return [asdict(cost) for cost in cost_by_module(model, axes)], [asdict(a) for a in list_attentions(model, axes)]


def _info(value: Any) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) else str(size.value) for size in value.shape or ())
    return TensorInfo(value.name, value.dtype.numpy().name if value.dtype else "unknown", shape)
