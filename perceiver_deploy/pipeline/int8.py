"""One stage of a bundle to INT8: its ranges, the graph, and what the manifest says of it."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from perceiver_deploy.export.description import GraphDescription, describe_graph
from perceiver_deploy.export.equalisation import ChannelPeaks, equalise, equalised_tensors
from perceiver_deploy.export.graph_files import external_above, write_graph
from perceiver_deploy.export.quantization_report import QuantizationReport
from perceiver_deploy.export.quantize import quantize_model, ranged_tensors
from perceiver_deploy.export.ranges import Ranges
from perceiver_deploy.manifest import StageName
from perceiver_deploy.pipeline.stage_ranges import Calibrator
from perceiver_deploy.progress import log


@dataclass(frozen=True)
class ConvertedStage:
    """What was quantised, at which ranges, and the graph."""

    report: QuantizationReport
    ranges: Ranges
    graph: GraphDescription


def convert_stage(
    stage: StageName,
    source: Path,
    target: Path,
    calibrator: Calibrator,
    *,
    unsigned: bool = False,
    equalised: bool = False,
    keep: Collection[str] = (),
) -> ConvertedStage:
    """Write the INT8 graph of a stage; `unsigned` and `keep` are those of `quantize_int8`.

    Raises:
        InputError, ExportError: as `Calibrator.ranges` and `quantize_int8`.
    """
    with tempfile.TemporaryDirectory() as folder:
        if equalised:
            source = _equalise(stage, source, calibrator, Path(folder))
        return _convert(stage, source, target, calibrator, unsigned=unsigned, keep=keep)


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


def _convert(
    stage: StageName, source: Path, target: Path, calibrator: Calibrator, *, unsigned: bool, keep: Collection[str]
) -> ConvertedStage:
    model = ir.load(source)
    ranges = calibrator.ranges(stage, source, ranged_tensors(model, keep))
    quantized, report = quantize_model(
        model, ranges.limits(), keep=keep, vanishing=ranges.vanishing(), unsigned=unsigned
    )
    write_graph(quantized, target, external_above(source))
    log.info(
        "Quantised %d of %d weight GEMMs of %s: %.1f %% of their operations, %.1f %% of all",
        report.quantized,
        report.weight_gemms,
        stage,
        100 * report.gemm_flops_share,
        100 * report.flops_share,
    )
    return ConvertedStage(report, ranges, describe_graph(quantized, calibrator.bundle.manifest.axes))
