"""Convert: add a variant of another precision to a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx_ir as ir

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle import Bundle, changed_bundle
from perceiver_deploy.data.datasets import DATA_SETS, Split, load_dataset
from perceiver_deploy.data.files import ARRAYS_SUFFIX, read_arrays
from perceiver_deploy.data.raw_sets import raw_data_set
from perceiver_deploy.errors import BundleError, InputError, UsageError
from perceiver_deploy.evaluate.parity import compare
from perceiver_deploy.export.calibration import observe
from perceiver_deploy.export.graph_files import stored_bytes
from perceiver_deploy.export.operators import count_operators
from perceiver_deploy.export.quantize import QuantizationReport, quantize_int8, ranged_tensors
from perceiver_deploy.manifest import DATA_SUFFIX, Manifest, StageName, Variant, graph_file
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.onnxruntime import OnnxRuntimeSession, open_graphs
from perceiver_deploy.runtimes.queries import all_queries
from perceiver_deploy.runtimes.session import check_inputs

CALIBRATION_SAMPLES = 256
_BATCH = 32
_SOURCE = "fp32"


@dataclass(frozen=True)
class ConvertResult:
    """What a conversion did, `reports` by stage.

    `relative_l2` and `top1` compare with fp32 on the calibration samples.
    """

    bundle: str
    variant: str
    reports: dict[StageName, QuantizationReport]
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
    precision: str = "int8",
    calibration: str | Path,
    samples: int = CALIBRATION_SAMPLES,
    force: bool = False,
) -> ConvertResult:
    """Add the variant `int8`, calibrated on training samples.

    Args:
        bundle: the bundle to add to.
        precision: "int8".
        calibration: a data set's name, or a .npz file with one array an input, whose batch is the samples.
        samples: how many samples to use at most.
        force: replace a variant of that name.

    Raises:
        UsageError, BundleError, InputError, ExportError: the bundle is left as it was.
    """
    if precision != "int8":
        raise UsageError(f"precision is {precision!r}; this version converts to int8 only.")
    if samples < 1:
        raise UsageError(f"samples is {samples}; expected at least 1.")
    with changed_bundle(bundle) as (staging, opened):
        if precision in opened.manifest.variants and not force:
            raise BundleError(f"{bundle} has a variant {precision!r} already. Replace it with --force.")
        data = _calibration_rows(opened, calibration, samples)
        count = len(data)
        sources = {stage: opened.file(file) for stage, file in opened.variant(_SOURCE).files.items()}
        files = {stage: graph_file(precision, stage) for stage in sources}
        targets = {stage: staging.path(file) for stage, file in files.items()}
        for file in files.values():
            staging.remove(file + DATA_SUFFIX)
        reports = {stage: _quantize(stage, sources, targets[stage], opened.manifest, data) for stage in sources}
        variant = Variant(
            precision="int8",
            runtimes=opened.variant(_SOURCE).runtimes,
            source=_SOURCE,
            files=files,
            recipe={
                "graphs": {
                    stage: {"operators": count_operators(ir.load(targets[stage])), **asdict(report)}
                    for stage, report in reports.items()
                },
                "quantizer": f"onnxruntime {version('onnxruntime')} static Q/DQ, symmetric, per-channel weights",
                "calibration": {"method": "minmax", "samples": count, "sha256": _digest(data.rows(slice(None)))},
            },
        )
        relative_l2, top1 = _agreement(opened.manifest, sources, targets, data)
        variants = {**opened.manifest.variants, precision: variant}
        engines = dict(opened.manifest.engines)
        for name in [name for name, engine in engines.items() if engine.variant == precision]:
            log.warning("Engine %s was built from the replaced variant and is removed; build it again.", name)
            file = engines.pop(name).file
            staging.remove(file)
            staging.remove(str(PurePosixPath(file).with_suffix(".json")))
        written, read = (sum(map(stored_bytes, graphs.values())) for graphs in (targets, sources))
        staging.finish(opened.manifest.model_copy(update={"variants": variants, "engines": engines}))
    return ConvertResult(str(bundle), precision, reports, count, written, read, relative_l2, top1)


def _quantize(
    stage: StageName, sources: Mapping[StageName, Path], target: Path, manifest: Manifest, data: Split
) -> QuantizationReport:
    """Quantise the graph of one stage."""
    log.info("Calibrating %s on %d samples", stage, len(data))
    source = sources[stage]
    histograms = observe(
        source,
        ranged_tensors(ir.load(source)),
        lambda: _stage_batches(stage, sources, manifest, data),
        count=-(-len(data) // _BATCH),
    )
    report = quantize_int8(source, target, {name: (seen.low, seen.high) for name, seen in histograms.items()})
    log.info("Quantised %d of %d weight GEMMs of %s", report.quantized, report.weight_gemms, stage)
    return report


def _stage_batches(
    stage: StageName, sources: Mapping[StageName, Path], manifest: Manifest, data: Split
) -> Iterator[Arrays]:
    """What a stage takes: the data, or their latents with everything there is to ask."""
    if stage == "full":
        yield from _batches(data)
        return
    full, encoder = manifest.stages["full"], manifest.stages["encoder"]
    encoded = ({spec.name: batch[spec.name] for spec in encoder.inputs} for batch in _batches(data))
    if stage == "encoder":
        yield from encoded
        return
    with OnnxRuntimeSession(sources["encoder"], encoder, manifest.axes) as session:
        for batch, inputs in zip(_batches(data), encoded, strict=True):
            yield {**session.run(inputs), **all_queries(manifest.stages["decoder"], full, batch)}


def _calibration_rows(bundle: Bundle, calibration: str | Path, samples: int) -> Split:
    """The samples, checked against the model's inputs; `targets` only number them."""
    if str(calibration) in DATA_SETS:
        data = load_dataset(str(calibration))
        data.require_task(bundle.manifest.task, str(bundle.path))
        if bundle.manifest.raw_inputs:
            data = raw_data_set(data)
        inputs = data.train.rows(slice(None))
    elif Path(calibration).suffix == ARRAYS_SUFFIX:
        inputs = read_arrays(Path(calibration))
    else:
        raise InputError(
            f"Calibration data {calibration} is neither a data set ({', '.join(DATA_SETS)}) nor a .npz file."
        )
    stage = bundle.manifest.stages["full"]
    check_inputs(inputs, stage.inputs, bundle.manifest.axes)
    for name, array in inputs.items():
        if not np.isfinite(array).all():
            raise InputError(f"Calibration input {name!r} holds values that are not finite. Remove those samples.")
    batched = [spec.name for spec in stage.inputs if spec.shape[0] == "batch"]
    rows = {name: inputs[name][:samples] for name in batched}
    shared = {name: array for name, array in inputs.items() if name not in rows}
    return Split(rows, targets=np.arange(len(rows[batched[0]])), shared=shared)


def _batches(data: Split) -> Iterator[Arrays]:
    for start in range(0, len(data), _BATCH):
        yield data.rows(slice(start, start + _BATCH))


def _agreement(
    manifest: Manifest, sources: Mapping[StageName, Path], targets: Mapping[StageName, Path], data: Split
) -> tuple[float, float | None]:
    """Relative L2 and top-1 agreement of the first output of both variants on the calibration samples."""
    name, results = manifest.stages["full"].outputs[0].name, []
    for files in (targets, sources):
        with open_graphs(files, manifest.stages, manifest.axes) as session:
            results.append(np.concatenate([session.run(batch)[name] for batch in _batches(data)]))
    figures = compare(*results)
    return figures.relative_l2, figures.top1


def _digest(data: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(data):
        digest.update(np.ascontiguousarray(data[name]).tobytes())
    return digest.hexdigest()
