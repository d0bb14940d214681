"""One stage of a bundle to fp16 or bf16: its ranges, the graph, and what the manifest says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle import Bundle
from perceiver_deploy.errors import BundleError
from perceiver_deploy.evaluate.samples import load_sample
from perceiver_deploy.export.calibration import fill, largest_batch
from perceiver_deploy.export.description import GraphDescription, describe_graph
from perceiver_deploy.export.extremes import Extremes
from perceiver_deploy.export.flops import flops_by_node
from perceiver_deploy.export.graph_files import external_above, write_graph
from perceiver_deploy.export.half import HalfPrecision, convert_to_half, tensors_to_observe
from perceiver_deploy.manifest import Axis, Manifest, Stage, StageName, opt_sizes
from perceiver_deploy.pipeline.calibration_data import CalibrationData, stage_batches
from perceiver_deploy.pipeline.inspection import summarize_reasons
from perceiver_deploy.pipeline.stage_ranges import MOST_ROWS
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.onnxruntime import open_graphs
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.staged import StagedSession

GOLDEN = "golden samples"
"""What is calibrated on where no data are given."""


@dataclass(frozen=True)
class GoldenData:
    """The inputs of a bundle's golden samples, the largest first: what ranges are seen on where no data are given."""

    samples: tuple[Arrays, ...]
    sha256: str
    manifest: Manifest
    graphs: Mapping[StageName, Path]

    def batches(self, stage: StageName, rows: int) -> Iterator[Arrays]:
        """What a stage takes, one sample at a time: they differ in shape, so `rows` has no use."""
        return stage_batches(stage, lambda: iter(self.samples), self.manifest, self.graphs)


def golden_data(bundle: Bundle, graphs: Mapping[StageName, Path]) -> GoldenData:
    """The golden samples of a bundle.

    Raises:
        BundleError: it has none.
    """
    names = bundle.samples()
    if not names:
        raise BundleError(f"{bundle.path} has no golden samples to see ranges on. Give data with --calibration.")
    samples = [load_sample(bundle.file(name)).inputs for name in names]
    samples.sort(key=lambda inputs: sum(array.size for array in inputs.values()), reverse=True)
    digests = "".join(bundle.manifest.files[name].sha256 for name in names)
    return GoldenData(tuple(samples), hashlib.sha256(digests.encode()).hexdigest(), bundle.manifest, graphs)


@dataclass(frozen=True)
class HalfReport:
    """The nodes that stay in float32, each with the reason, and the share of the FLOPs that are in half precision.

    FLOPs are counted with the axes at their `opt` sizes. A reason is `KIND` or `KIND: DETAIL`.
    """

    kept: dict[str, str]
    flops_share: float

    def lines(self) -> list[str]:
        """For people: what is in half precision, and how many nodes are not."""
        share = f"{self.flops_share:.1%} of the operations in half precision"
        return [share, f"nodes in float32: {summarize_reasons(self.kept)}"]


@dataclass(frozen=True)
class HalfStage:
    """What was converted, and the graph."""

    report: HalfReport
    graph: GraphDescription


def convert_stage_to_half(
    stage: StageName, source: Path, target: Path, data: CalibrationData | GoldenData, precision: HalfPrecision
) -> HalfStage:
    """Write the graph of a stage in half precision.

    Raises:
        InputError, ExportError: as `calibration.fill` and `convert_to_half`.
    """
    axes = data.manifest.axes
    model = ir.load(source)
    ranges = {name: Extremes() for name in tensors_to_observe(model, precision)}
    if ranges:
        log.info("Looking at the ranges of %s", stage)
        rows = largest_batch(model, [*ranges], next(data.batches(stage, 1)), MOST_ROWS)
        fill(ranges, source, lambda: data.batches(stage, rows))
    kept = convert_to_half(model, precision, {name: (seen.low, seen.high) for name, seen in ranges.items()})
    write_graph(model, target, external_above(source))
    graph = describe_graph(model, axes)
    flops = flops_by_node(model, opt_sizes(axes))
    in_half = sum(count for node, count in flops.items() if node.name not in kept)
    report = HalfReport(kept, in_half / sum(flops.values()))
    log.info(
        "%s computes %.1f %% of its operations in %s; %d nodes stay in float32",
        stage,
        100 * report.flops_share,
        precision,
        len(kept),
    )
    return HalfStage(report, graph)


OpenGraphs = Callable[[Mapping[StageName, Path], Mapping[StageName, Stage], Mapping[str, Axis]], Session]


def opener(precision: HalfPrecision) -> OpenGraphs:
    """How to open graphs of a precision here: onnxruntime reads no bf16 on a CPU, OpenVINO does."""
    return open_graphs if precision == "fp16" else _open_in_openvino


def _open_in_openvino(
    files: Mapping[StageName, Path], stages: Mapping[StageName, Stage], axes: Mapping[str, Axis]
) -> Session:
    from perceiver_deploy.runtimes.openvino import OpenVinoSession

    return StagedSession(
        stages["full"],
        axes,
        {name: stages[name] for name in files},
        lambda name: OpenVinoSession(files[name], stages[name], axes),
    )
