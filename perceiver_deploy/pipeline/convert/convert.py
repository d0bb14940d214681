"""Convert: add a variant of another precision to a bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from perceiver_deploy.bundle.bundle import Bundle, Staging, changed_bundle
from perceiver_deploy.bundle.manifest import DATA_SUFFIX, Engine, Precision, StageName, Variant, graph_file
from perceiver_deploy.bundle.recipe import VariantRecipe
from perceiver_deploy.data.metrics import has_classes
from perceiver_deploy.errors import BundleError, UsageError
from perceiver_deploy.evaluate.accuracy.contract import MaxDrop
from perceiver_deploy.evaluate.parity.verdicts import compare, finite_or_none
from perceiver_deploy.export.calibration.thresholds import Method
from perceiver_deploy.export.graph.files import stored_bytes
from perceiver_deploy.pipeline.convert.exact_outputs import write_exact_outputs
from perceiver_deploy.pipeline.convert.finite_outputs import FiniteOutputs
from perceiver_deploy.pipeline.convert.half_precision import prepare_half
from perceiver_deploy.pipeline.convert.int8 import CALIBRATION_SAMPLES, METHOD, Int8Options, Target, prepare_int8
from perceiver_deploy.pipeline.convert.int8_weights import prepare_weights
from perceiver_deploy.pipeline.convert.plan import Conversion, ConvertedStage, Report, opener
from perceiver_deploy.pipeline.convert.ranges import ranges_file
from perceiver_deploy.pipeline.convert.search import MixedPrecision, keep_contract
from perceiver_deploy.pipeline.samples.calibration import CalibrationData, calibration_data
from perceiver_deploy.pipeline.samples.golden import GOLDEN, GoldenData, golden_data, made_data
from perceiver_deploy.pipeline.samples.held_out import held_out_data
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.cpu.onnxruntime import open_graphs

_SOURCE = "fp32"


@dataclass(frozen=True)
class ConvertResult:
    """What a conversion did, `reports` by stage.

    `relative_l2` and `top1` compare the first output with fp32's on the samples of `calibration`, which may be the
    golden ones; `top1` is there for class scores alone. `contract` says what `max_drop` led to.
    """

    bundle: str
    variant: str
    reports: dict[StageName, Report]
    calibration: str
    samples: int
    onnx_bytes: int
    source_bytes: int
    relative_l2: float
    top1: float | None
    contract: MixedPrecision | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict. A `relative_l2` that is not finite is None."""
        contract = None if self.contract is None else self.contract.to_recipe()
        reports = {stage: asdict(report) for stage, report in self.reports.items()}
        own = {"relative_l2": finite_or_none(self.relative_l2), "reports": reports, "contract": contract}
        return {**self.__dict__, **own}


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
    max_drop: MaxDrop | str | None = None,
    held_out: str | Path | None = None,
    force: bool = False,
) -> ConvertResult:
    """Add the variant `int8`, `int8-TARGET`, `int8-weights`, `fp16` or `bf16`.

    Beside it the bundle gets what its graph gives exactly for the golden samples, which runtimes are held to.

    Args:
        bundle: the bundle to add to.
        precision: "int8", "int8-weights" (weights alone, computed in float32), "fp16" or "bf16".
        calibration: a data set's name, or a .npz file with one array an input, whose batch is the samples; other
            precisions than int8 take the bundle's golden samples where none is given. bf16 has the range of fp32 and
            weights need no range: they are only compared.
        target: what the variant is for: every runtime that fp32 is for and any processor (None); "cpu": uint8
            activations with a zero point, which TensorRT does not read; "vnni": processors with INT8 dot products
            alone, where weights may use all levels; or "tensorrt", the same for TensorRT's runtimes.
        method: how thresholds follow from the ranges (see `export.thresholds.choose_threshold`).
        samples: how many samples to use at most.
        ranges: files of an earlier conversion to take the ranges from; by default those of the bundle that fit.
        equalised: move what is large in few channels of activations to the weights first (see `export.equalisation`).
        max_drop: by how much the task's metric may fall against eager (`MaxDrop`, or "0.5", or "1%"); layers are
            returned to float32 until it does not.
        held_out: what that is judged on: a data set, whose test split is taken (by default that of `calibration`), or a
            .npz file with one array an input and perhaps `labels`.
        force: replace a variant of that name.

    Raises:
        ContractError: no mixed precision keeps `max_drop`; the best is in it, and the bundle is left as it was.
        ParityError: outputs for the calibration samples are not finite where those of fp32 are.
        UsageError, BundleError, InputError, ExportError, MissingError: as `calibration_data` and the conversions say.
    """
    options = Int8Options(target, method, tuple(ranges), equalised)
    _check_options(precision, calibration, options, samples)
    if held_out is not None and max_drop is None:
        raise UsageError("held_out is what max_drop is judged on; give max_drop too, or leave held_out out.")
    limit = MaxDrop.parse(max_drop) if isinstance(max_drop, str) else max_drop
    name = options.variant if precision == "int8" else precision
    with changed_bundle(bundle) as (staging, opened), tempfile.TemporaryDirectory() as folder:
        if name in opened.manifest.variants and not force:
            raise BundleError(f"{bundle} has a variant {name!r} already. Replace it with --force.")
        sources = {stage: opened.file(file) for stage, file in opened.variant(_SOURCE).files.items()}
        data = _calibration(opened, precision, calibration, samples, sources)
        held = None if limit is None else held_out_data(opened, held_out, calibration)
        if held is not None:
            held.require_unlike(data)
        conversion = _prepare(opened, precision, options, sources, data, Path(folder))
        contract = None if limit is None or held is None else keep_contract(limit, held, conversion, opened)
        keep = {} if contract is None else contract.keep
        engines = _remove_variant(name, opened, staging)
        files = {stage: graph_file(name, stage) for stage in sources}
        targets = {stage: staging.path(file) for stage, file in files.items()}
        made = {
            stage: converter.convert(targets[stage], keep.get(stage, ()))
            for stage, converter in conversion.stages.items()
        }
        for stage, found in conversion.ranges.items():
            staging.path(ranges_file(files[stage])).write_text(found.to_json(), encoding="utf-8")
        relative_l2, top1 = _agreement(conversion, targets)
        write_exact_outputs(staging, opened, name, precision, targets)
        variant = Variant(
            precision=precision,
            runtimes=conversion.runtimes,
            source=_SOURCE,
            files=files,
            recipe=_recipe(conversion, made, contract),
        )
        variants = {**opened.manifest.variants, name: variant}
        written, read = (sum(map(stored_bytes, graphs.values())) for graphs in (targets, sources))
        staging.finish(opened.manifest.model_copy(update={"variants": variants, "engines": engines}))
    return ConvertResult(
        bundle=str(bundle),
        variant=name,
        reports={stage: each.report for stage, each in made.items()},
        calibration=GOLDEN if calibration is None else str(calibration),
        samples=len(conversion.data.samples),
        onnx_bytes=written,
        source_bytes=read,
        relative_l2=relative_l2,
        top1=top1,
        contract=contract,
    )


def _recipe(
    conversion: Conversion, made: Mapping[StageName, ConvertedStage], contract: MixedPrecision | None
) -> VariantRecipe:
    graphs = {stage: asdict(each.graph) | asdict(each.report) for stage, each in made.items()}
    kept = {} if contract is None else {"contract": contract.to_recipe()}
    return VariantRecipe.model_validate({"graphs": graphs, **conversion.recipe, **kept})


def _check_options(precision: Precision, calibration: str | Path | None, options: Int8Options, samples: int) -> None:
    if samples < 1:
        raise UsageError(f"samples is {samples}; expected at least 1.")
    if precision == "fp32":
        raise UsageError(
            "precision is 'fp32', which the bundle has already; expected int8, int8-weights, fp16 or bf16."
        )
    if precision != "int8" and options != Int8Options():
        raise UsageError(
            f"target, method, ranges and equalised are choices about int8; leave them out for {precision}."
        )
    if precision == "int8" and calibration is None:
        raise UsageError("int8 needs calibration data. Name a data set or a .npz file with --calibration.")


def _calibration(
    bundle: Bundle,
    precision: Precision,
    calibration: str | Path | None,
    samples: int,
    sources: Mapping[StageName, Path],
) -> CalibrationData | GoldenData:
    if calibration is None:
        needs_none = precision == "int8-weights" and not bundle.samples()
        return made_data(bundle, sources) if needs_none else golden_data(bundle, sources)
    return calibration_data(bundle, calibration, samples, sources)


def _prepare(
    bundle: Bundle,
    precision: Precision,
    options: Int8Options,
    sources: Mapping[StageName, Path],
    data: CalibrationData | GoldenData,
    folder: Path,
) -> Conversion:
    runtimes = bundle.variant(_SOURCE).runtimes
    if precision in ("fp16", "bf16"):
        return prepare_half(bundle, precision, sources, data, runtimes)
    if precision == "int8-weights":
        return prepare_weights(bundle, sources, data, runtimes)
    assert isinstance(data, CalibrationData)
    return prepare_int8(bundle, options, sources, data, runtimes, folder)


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
            staging.remove(ranges_file(file))
        for file in bundle.exact_outputs(name).values():
            staging.remove(file)
    return engines


def _agreement(conversion: Conversion, targets: Mapping[StageName, Path]) -> tuple[float, float | None]:
    """Relative L2 of the first output of both variants on the samples, and where it is class scores, equal top-1.

    Raises:
        ParityError: as `FiniteOutputs.require`.
    """
    data = conversion.data
    manifest, results = data.manifest, []
    output = manifest.stages["full"].outputs[0]
    row = output.shape[-1] if isinstance(output.shape[-1], int) else 1
    finite = FiniteOutputs(conversion.variant)
    for files, open_files, look in (
        (targets, opener(conversion.precision), finite.note),
        (data.graphs, open_graphs, finite.require),
    ):
        with open_files(files, manifest.stages, manifest.axes) as session:
            batches = [look(session.run(batch))[output.name] for batch in data.batches("full", conversion.rows)]
        results.append(np.concatenate([batch.reshape(-1, row) for batch in batches]))
    figures = compare(*results)
    return figures.relative_l2, figures.top1 if has_classes(output.name) else None
