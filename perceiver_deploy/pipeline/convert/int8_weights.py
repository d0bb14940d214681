"""Conversion to INT8 weights: each stage's graph with its weights in INT8, and what the manifest says of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Axis, RuntimeName, StageName
from perceiver_deploy.export.description import describe_graph
from perceiver_deploy.export.graph.files import external_above, write_graph
from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.int8.pair_placement import dequantizer_of
from perceiver_deploy.export.int8.rules import gemms
from perceiver_deploy.export.int8.weights_only import quantize_weights
from perceiver_deploy.pipeline.convert.plan import Conversion, ConvertedStage
from perceiver_deploy.pipeline.samples.calibration import CalibrationData
from perceiver_deploy.pipeline.samples.golden import GoldenData


@dataclass(frozen=True)
class WeightsStage:
    """A stage's float32 graph."""

    source: Path
    axes: Mapping[str, Axis]

    @property
    def products(self) -> Mapping[str, str]:
        """The module of each product whose weight is stored in INT8."""
        model = ir.load(self.source)
        quantize_weights(model)
        stored = (node for node in gemms(model) if dequantizer_of(node.inputs[1]) is not None)
        return {str(node.name): module_of(node) for node in stored}

    def convert(self, target: Path, keep: Collection[str] = ()) -> ConvertedStage:
        """Write the graph; see `StageConverter`."""
        model = ir.load(self.source)
        report = quantize_weights(model, keep)
        write_graph(model, target, external_above(self.source))
        return ConvertedStage(report, report.left, describe_graph(model, self.axes))


def prepare_weights(
    bundle: Bundle,
    sources: Mapping[StageName, Path],
    data: CalibrationData | GoldenData,
    runtimes: tuple[RuntimeName, ...],
) -> Conversion:
    """Nothing has to be measured: `data` is only what the variant is compared with fp32 on."""
    stages = {stage: WeightsStage(source, bundle.manifest.axes) for stage, source in sources.items()}
    recipe = {"weights": "int8, symmetric, a scale for each output channel", "arithmetic": "float32"}
    return Conversion(
        variant="int8-weights", precision="int8-weights", runtimes=runtimes, data=data, stages=stages, recipe=recipe
    )
