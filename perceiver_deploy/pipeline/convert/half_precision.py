"""Conversion to fp16 or bf16: the ranges of each stage, its graph, and what the manifest says of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Axis, RuntimeName, StageName, opt_sizes
from perceiver_deploy.export.calibration.extremes import Extremes
from perceiver_deploy.export.calibration.observation import fill, largest_batch
from perceiver_deploy.export.compatibility import readable_by
from perceiver_deploy.export.description import describe_graph
from perceiver_deploy.export.graph.files import external_above, write_graph
from perceiver_deploy.export.graph.flops import flops_by_node
from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.half.convert import HalfPrecision, convert_to_half, tensors_to_observe
from perceiver_deploy.export.half.rules import PRODUCTS
from perceiver_deploy.pipeline.convert.half_report import HalfReport
from perceiver_deploy.pipeline.convert.plan import Conversion, ConvertedStage
from perceiver_deploy.pipeline.convert.ranges import MOST_ROWS
from perceiver_deploy.pipeline.samples.calibration import CalibrationData
from perceiver_deploy.pipeline.samples.golden import GoldenData
from perceiver_deploy.progress import log


@dataclass(frozen=True)
class HalfStage:
    """A stage's float32 graph with the ranges of its tensors."""

    stage: StageName
    source: Path
    ranges: Mapping[str, tuple[float, float]]
    precision: HalfPrecision
    axes: Mapping[str, Axis]

    @property
    def products(self) -> Mapping[str, str]:
        """The module of each product of matrices."""
        return {str(node.name): module_of(node) for node in ir.load(self.source).graph if node.op_type in PRODUCTS}

    def convert(self, target: Path, keep: Collection[str] = ()) -> ConvertedStage:
        """Write the graph; see `StageConverter`."""
        model = ir.load(self.source)
        kept = convert_to_half(model, self.precision, self.ranges, keep)
        write_graph(model, target, external_above(self.source))
        graph = describe_graph(model, self.axes)
        flops = flops_by_node(model, opt_sizes(self.axes))
        in_half = sum(count for node, count in flops.items() if node.name not in kept)
        report = HalfReport(kept, in_half / sum(flops.values()))
        log.info(
            "%s computes %.1f %% of its operations in %s; %d nodes stay in float32",
            self.stage,
            100 * report.flops_share,
            self.precision,
            len(kept),
        )
        return ConvertedStage(report, kept, graph)


def prepare_half(
    bundle: Bundle,
    precision: HalfPrecision,
    sources: Mapping[StageName, Path],
    data: CalibrationData | GoldenData,
    runtimes: tuple[RuntimeName, ...],
) -> Conversion:
    """Look at the ranges of each stage.

    Raises:
        UsageError: none of the runtimes reads the precision.
        InputError, ExportError: as `calibration.fill`.
    """
    suited = readable_by(precision, runtimes)
    stages = {}
    for stage, source in sources.items():
        ranges = _ranges(stage, source, data, precision)
        stages[stage] = HalfStage(stage, source, ranges, precision, bundle.manifest.axes)
    recipe = {
        "calibration": {
            "golden": isinstance(data, GoldenData),
            "samples": len(data.samples),
            "sha256": data.sha256,
        },
    }
    return Conversion(variant=precision, precision=precision, runtimes=suited, data=data, stages=stages, recipe=recipe)


def _ranges(
    stage: StageName, source: Path, data: CalibrationData | GoldenData, precision: HalfPrecision
) -> dict[str, tuple[float, float]]:
    model = ir.load(source)
    seen = {name: Extremes() for name in tensors_to_observe(model, precision)}
    if seen:
        log.info("Looking at the ranges of %s", stage)
        rows = largest_batch(model, [*seen], next(data.batches(stage, 1)), MOST_ROWS)
        fill(seen, source, lambda: data.batches(stage, rows))
    return {name: (found.low, found.high) for name, found in seen.items()}
