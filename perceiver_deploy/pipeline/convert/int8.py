"""Conversion to INT8: the ranges of each stage, its graph, and what the manifest says of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Axis, RuntimeName, StageName
from perceiver_deploy.errors import UsageError
from perceiver_deploy.export.calibration.ranges import Ranges
from perceiver_deploy.export.calibration.thresholds import Method
from perceiver_deploy.export.description import describe_graph
from perceiver_deploy.export.graph.files import external_above, write_graph
from perceiver_deploy.export.graph.origin import module_of
from perceiver_deploy.export.int8.equalisation import ChannelPeaks, equalise, equalised_tensors
from perceiver_deploy.export.int8.quantize import quantize_model, ranged_tensors
from perceiver_deploy.export.int8.rules import gemms
from perceiver_deploy.export.int8.saturation import WeightScales, full_scales, safe_scales
from perceiver_deploy.machine import int8_problem
from perceiver_deploy.pipeline.convert.plan import Conversion, ConvertedStage
from perceiver_deploy.pipeline.convert.ranges import Calibrator
from perceiver_deploy.pipeline.samples.calibration import CalibrationData
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.catalogue import CPU_RUNTIMES

METHOD: Method = "minmax"
CALIBRATION_SAMPLES = 256
Target = Literal["cpu", "vnni", "tensorrt"]
RUNTIMES: dict[Target, tuple[RuntimeName, ...]] = {
    "cpu": CPU_RUNTIMES,
    "vnni": CPU_RUNTIMES,
    "tensorrt": ("onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"),
}
"""The runtimes that a variant for a target is for."""
ALL_LEVELS: tuple[Target, ...] = ("vnni", "tensorrt")
"""Targets whose weights may use all levels, because their sums do not saturate."""


@dataclass(frozen=True)
class Int8Options:
    """Choices about INT8; see `convert_bundle`."""

    target: Target | None = None
    method: Method = METHOD
    ranges: Sequence[str | Path] = ()
    equalised: bool = False

    @property
    def variant(self) -> str:
        """What a variant of these options is called."""
        return "int8" if self.target is None else f"int8-{self.target}"


@dataclass(frozen=True)
class Int8Stage:
    """A stage's float32 graph, its channels equalised where that was asked for, with the ranges of its tensors."""

    stage: StageName
    source: Path
    ranges: Ranges
    axes: Mapping[str, Axis]
    unsigned: bool
    weight_scales: WeightScales

    @property
    def products(self) -> Mapping[str, str]:
        """The module of each GEMM."""
        return {str(node.name): module_of(node) for node in gemms(ir.load(self.source))}

    def convert(self, target: Path, keep: Collection[str] = ()) -> ConvertedStage:
        """Write the graph; see `StageConverter`."""
        quantized, report = quantize_model(
            ir.load(self.source),
            self.ranges.limits(),
            keep=keep,
            lost=self.ranges.lost(),
            unsigned=self.unsigned,
            weight_scales=self.weight_scales,
        )
        write_graph(quantized, target, external_above(self.source))
        log.info(
            "Quantised %d of %d weight GEMMs of %s: %.1f %% of their operations, %.1f %% of all",
            report.quantized,
            report.weight_gemms,
            self.stage,
            100 * report.gemm_flops_share,
            100 * report.flops_share,
        )
        return ConvertedStage(report, report.left, describe_graph(quantized, self.axes))


def prepare_int8(
    bundle: Bundle,
    options: Int8Options,
    sources: Mapping[StageName, Path],
    data: CalibrationData,
    runtimes: tuple[RuntimeName, ...],
    folder: Path,
) -> Conversion:
    """Find or measure the ranges of each stage. Equalised graphs are written to `folder`.

    Raises:
        UsageError: none of the runtimes is what the target means.
        InputError, ExportError: as `Calibrator.ranges`.
    """
    suited = _suited(runtimes, options.target)
    if options.target != "tensorrt" and (problem := int8_problem()) is not None:
        log.warning("%s", problem)
    calibrator = Calibrator(bundle, data, options.method, [*map(Path, options.ranges)])
    unsigned = options.target == "cpu"
    weight_scales = full_scales if options.target in ALL_LEVELS else safe_scales
    stages = {}
    for stage, source in sources.items():
        if options.equalised:
            source = _equalise(stage, source, calibrator, folder)
        ranges = calibrator.ranges(stage, source, ranged_tensors(ir.load(source)))
        stages[stage] = Int8Stage(stage, source, ranges, bundle.manifest.axes, unsigned, weight_scales)
    recipe = {
        "quantizer": f"onnxruntime {version('onnxruntime')} Q/DQ on what GEMMs read, per-channel weights",
        "activations": "uint8, of attentions int8, symmetric" if unsigned else "int8, symmetric",
        "weights": "all levels" if options.target in ALL_LEVELS else "no two neighbours of one sign beyond 128",
        "processors": "with INT8 dot products" if options.target == "vnni" else "any",
        "calibration": {"method": options.method, "samples": len(data.samples), "sha256": data.sha256},
        "equalised": options.equalised,
    }
    return Conversion(
        variant=options.variant,
        precision="int8",
        runtimes=suited,
        data=data,
        rows=min(calibrator.rows(name, sources[name], each.ranges.tensors) for name, each in stages.items()),
        stages=stages,
        ranges={name: each.ranges for name, each in stages.items()},
        recipe=recipe,
    )


def _suited(runtimes: tuple[RuntimeName, ...], target: Target | None) -> tuple[RuntimeName, ...]:
    """Those of the target among the runtimes that fp32 is for."""
    suited = tuple(name for name in runtimes if target is None or name in RUNTIMES[target])
    if not suited:
        raise UsageError(
            f"The bundle is for {', '.join(runtimes)}, none of which --for {target} means. Leave --for out, or export "
            "the checkpoint again for other runtimes."
        )
    return suited


def _equalise(stage: StageName, source: Path, calibrator: Calibrator, folder: Path) -> Path:
    """The same function with equal channels, in a file of its own."""
    model = ir.load(source)
    peaks = {name: ChannelPeaks() for name in equalised_tensors(model)}
    if peaks:
        log.info("Looking at the channels of %s", stage)
        calibrator.fill(peaks, stage, source)
    count = equalise(model, {name: seen.peaks for name, seen in peaks.items()})
    log.info("Equalised the channels of %d tensors of %s", count, stage)
    target = folder / source.name
    write_graph(model, target, external_above(source))
    return target
