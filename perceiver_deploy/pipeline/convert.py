"""Convert: add a variant of another precision to a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from perceiver_deploy.bundle import Bundle, Staging, changed_bundle
from perceiver_deploy.errors import BundleError, UsageError
from perceiver_deploy.evaluate.environment import int8_problem
from perceiver_deploy.evaluate.parity import compare
from perceiver_deploy.export.compatibility import readable_by
from perceiver_deploy.export.graph_files import stored_bytes
from perceiver_deploy.export.half import HalfPrecision
from perceiver_deploy.export.quantization_report import QuantizationReport
from perceiver_deploy.export.thresholds import Method
from perceiver_deploy.manifest import DATA_SUFFIX, Engine, Precision, RuntimeName, StageName, Variant, graph_file
from perceiver_deploy.pipeline.calibration_data import CalibrationData, calibration_data
from perceiver_deploy.pipeline.half import (
    GOLDEN,
    GoldenData,
    HalfReport,
    OpenGraphs,
    convert_stage_to_half,
    golden_data,
    opener,
)
from perceiver_deploy.pipeline.int8 import convert_stage
from perceiver_deploy.pipeline.stage_ranges import FOLDER, Calibrator
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.onnxruntime import open_graphs

CALIBRATION_SAMPLES = 256
METHOD: Method = "minmax"
Target = Literal["cpu", "tensorrt"]
RUNTIMES: dict[Target, tuple[RuntimeName, ...]] = {
    "cpu": ("onnxruntime", "openvino"),
    "tensorrt": ("onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"),
}
"""The runtimes that a variant for a target is for."""
_SOURCE = "fp32"


@dataclass(frozen=True)
class ConvertResult:
    """What a conversion did, `reports` by stage.

    `relative_l2` and `top1` compare with fp32 on the samples of `calibration`, which may be the golden ones.
    """

    bundle: str
    variant: str
    reports: dict[StageName, QuantizationReport] | dict[StageName, HalfReport]
    calibration: str
    samples: int
    onnx_bytes: int
    source_bytes: int
    relative_l2: float
    top1: float | None

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def convert_bundle(
    bundle: str | Path,
    *,
    precision: Precision = "int8",
    calibration: str | Path | None = None,
    target: Target | None = None,
    method: Method = METHOD,
    samples: int = CALIBRATION_SAMPLES,
    ranges: Sequence[str | Path] = (),
    equalised: bool = False,
    force: bool = False,
) -> ConvertResult:
    """Add the variant `int8`, or `int8-TARGET`, calibrated on training samples.

    Args:
        bundle: the bundle to add to.
        precision: "int8", "fp16" or "bf16".
        calibration: a data set's name, or a .npz file with one array an input, whose batch is the samples; fp16 and
            bf16 take the bundle's golden samples where none is given. bf16 has the range of fp32, and is only compared.
        target: what the variant is for: every runtime that fp32 is for (None), "tensorrt", or "cpu": uint8 activations
            with a zero point, which TensorRT does not read.
        method: how thresholds follow from the ranges (see `export.thresholds.choose_threshold`).
        samples: how many samples to use at most.
        ranges: files of an earlier conversion to take the ranges from; by default those of the bundle that fit.
        equalised: move what is large in few channels of activations to the weights first (see `export.equalisation`).
        force: replace a variant of that name.

    Raises:
        UsageError, BundleError, InputError, ExportError: the bundle is left as it was.
    """
    if samples < 1:
        raise UsageError(f"samples is {samples}; expected at least 1.")
    if precision == "fp32":
        raise UsageError("precision is 'fp32', which the bundle has already; expected int8, fp16 or bf16.")
    if precision != "int8":
        if target is not None or method != METHOD or ranges or equalised:
            raise UsageError(
                f"target, method, ranges and equalised are choices about int8; leave them out for {precision}."
            )
        return _convert_to_half(bundle, precision, calibration, samples, force=force)
    if calibration is None:
        raise UsageError("int8 needs calibration data. Name a data set or a .npz file with --calibration.")
    name = precision if target is None else f"{precision}-{target}"
    with changed_bundle(bundle) as (staging, opened):
        if name in opened.manifest.variants and not force:
            raise BundleError(f"{bundle} has a variant {name!r} already. Replace it with --force.")
        runtimes = _runtimes(opened, target)
        if target != "tensorrt" and (problem := int8_problem()) is not None:
            log.warning("%s", problem)
        sources = {stage: opened.file(file) for stage, file in opened.variant(_SOURCE).files.items()}
        data = calibration_data(opened, calibration, samples, sources)
        calibrator = Calibrator(opened, data, method, [*map(Path, ranges)])
        files = {stage: graph_file(name, stage) for stage in sources}
        engines = _remove_variant(name, opened, staging)
        converted = {
            stage: convert_stage(
                stage,
                source,
                staging.path(files[stage]),
                calibrator,
                unsigned=target == "cpu",
                equalised=equalised,
            )
            for stage, source in sources.items()
        }
        for stage, made in converted.items():
            file = f"{FOLDER}/{PurePosixPath(files[stage]).stem}.json"
            staging.path(file).write_text(made.ranges.to_json(), encoding="utf-8")
        targets = {stage: staging.root / file for stage, file in files.items()}
        rows = min(calibrator.rows(stage, sources[stage], made.ranges.tensors) for stage, made in converted.items())
        relative_l2, top1 = _agreement(data, targets, open_graphs, rows)
        variant = Variant(
            precision=precision,
            runtimes=runtimes,
            source=_SOURCE,
            files=files,
            recipe={
                "graphs": {stage: asdict(made.graph) | asdict(made.report) for stage, made in converted.items()},
                "quantizer": f"onnxruntime {version('onnxruntime')} Q/DQ on what GEMMs read, per-channel weights",
                "activations": "uint8, of attentions int8, symmetric" if target == "cpu" else "int8, symmetric",
                "calibration": {"method": method, "samples": len(data.samples), "sha256": data.sha256},
                "equalised": equalised,
            },
        )
        variants = {**opened.manifest.variants, name: variant}
        written, read = (sum(map(stored_bytes, graphs.values())) for graphs in (targets, sources))
        staging.finish(opened.manifest.model_copy(update={"variants": variants, "engines": engines}))
    reports = {stage: made.report for stage, made in converted.items()}
    return ConvertResult(
        str(bundle), name, reports, str(calibration), len(data.samples), written, read, relative_l2, top1
    )


def _convert_to_half(
    bundle: str | Path, precision: HalfPrecision, calibration: str | Path | None, samples: int, *, force: bool
) -> ConvertResult:
    with changed_bundle(bundle) as (staging, opened):
        if precision in opened.manifest.variants and not force:
            raise BundleError(f"{bundle} has a variant {precision!r} already. Replace it with --force.")
        runtimes = readable_by(precision, opened.variant(_SOURCE).runtimes)
        sources = {stage: opened.file(file) for stage, file in opened.variant(_SOURCE).files.items()}
        data = (
            golden_data(opened, sources)
            if calibration is None
            else calibration_data(opened, calibration, samples, sources)
        )
        files = {stage: graph_file(precision, stage) for stage in sources}
        engines = _remove_variant(precision, opened, staging)
        targets = {stage: staging.path(file) for stage, file in files.items()}
        made = {stage: convert_stage_to_half(stage, sources[stage], targets[stage], data, precision) for stage in files}
        relative_l2, top1 = _agreement(data, targets, opener(precision), rows=1)
        variant = Variant(
            precision=precision,
            runtimes=runtimes,
            source=_SOURCE,
            files=files,
            recipe={
                "graphs": {stage: asdict(each.graph) | asdict(each.report) for stage, each in made.items()},
                "calibration": {
                    "golden": calibration is None,
                    "samples": len(data.samples),
                    "sha256": data.sha256,
                },
            },
        )
        variants = {**opened.manifest.variants, precision: variant}
        written, read = (sum(map(stored_bytes, graphs.values())) for graphs in (targets, sources))
        staging.finish(opened.manifest.model_copy(update={"variants": variants, "engines": engines}))
    named = GOLDEN if calibration is None else str(calibration)
    reports = {stage: each.report for stage, each in made.items()}
    return ConvertResult(str(bundle), precision, reports, named, len(data.samples), written, read, relative_l2, top1)


def _runtimes(bundle: Bundle, target: Target | None) -> tuple[RuntimeName, ...]:
    """Of the runtimes that fp32 is for, those of the target."""
    source = bundle.variant(_SOURCE).runtimes
    suited = tuple(name for name in source if target is None or name in RUNTIMES[target])
    if not suited:
        raise UsageError(
            f"The bundle is for {', '.join(source)}, none of which --for {target} means. Leave --for out, or export "
            "the checkpoint again for other runtimes."
        )
    return suited


def _remove_variant(name: str, bundle: Bundle, staging: Staging) -> dict[str, Engine]:
    """Remove the files of a variant that is to be replaced, and its engines; returns the engines that stay."""
    engines = dict(bundle.manifest.engines)
    for engine in [key for key, value in engines.items() if value.variant == name]:
        log.warning("Engine %s was built from the replaced variant and is removed; build it again.", engine)
        file = engines.pop(engine).file
        staging.remove(file)
        staging.remove(str(PurePosixPath(file).with_suffix(".json")))
    if name in bundle.manifest.variants:
        for file in bundle.manifest.variants[name].files.values():
            staging.remove(file)
            staging.remove(file + DATA_SUFFIX)
            staging.remove(f"{FOLDER}/{PurePosixPath(file).stem}.json")
    return engines


def _agreement(
    data: CalibrationData | GoldenData, targets: Mapping[StageName, Path], open_variant: OpenGraphs, rows: int
) -> tuple[float, float | None]:
    """Relative L2 and top-1 agreement of the first output of both variants on the samples, row by row."""
    manifest, results = data.manifest, []
    output = manifest.stages["full"].outputs[0]
    row = output.shape[-1] if isinstance(output.shape[-1], int) else 1
    for files, open_files in ((targets, open_variant), (data.graphs, open_graphs)):
        with open_files(files, manifest.stages, manifest.axes) as session:
            batches = [session.run(batch)[output.name] for batch in data.batches("full", rows)]
        results.append(np.concatenate([batch.reshape(-1, row) for batch in batches]))
    figures = compare(*results)
    return figures.relative_l2, figures.top1
