"""Build: add a compiled engine of TensorRT or TensorRT-RTX to a bundle."""

from __future__ import annotations

import gzip
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.bundle.manifest import Engine, StageName
from perceiver_deploy.bundle.onnx_header import external_files
from perceiver_deploy.errors import BundleError, UsageError
from perceiver_deploy.export.engine.build import BuildOptions, capability_text, parse_compute_capability
from perceiver_deploy.export.engine.cache import build_or_reuse
from perceiver_deploy.export.options import FUSED
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.catalogue import RUNTIMES
from perceiver_deploy.runtimes.nvidia.families import Family, engine_family
from perceiver_deploy.runtimes.nvidia.gpu import driver_version, require_gpu
from perceiver_deploy.runtimes.nvidia.profiles import Profile, Sizes, input_profile, parse_shapes
from perceiver_deploy.runtimes.nvidia.side_car import SideCar

DEFAULT_CAPABILITY = "8.9"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass
class BuildResult:
    """What a build did. `facts` is what the side-car holds; `reused`: an equal engine was there from before.

    `builder_log` is where the bundle has what the builder said, compressed.
    """

    bundle: str
    name: str
    variant: str
    file: str
    engine_bytes: int
    reused: bool
    builder_log: str
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return dict(self.__dict__)


def build_engine(
    bundle: str | Path,
    *,
    engine: str = "tensorrt-rtx",
    variant: str = "fp32",
    stage: StageName = "full",
    shapes: Sequence[str] = (),
    compute_capabilities: Sequence[str] | None = None,
    refit: bool = False,
    strip_weights: bool = False,
    hardware_compatible: bool = False,
    version_compatible: bool = False,
    name: str | None = None,
    force: bool = False,
) -> BuildResult:
    """Compile a stage of a variant and add `engines/NAME.engine` with its side-car `engines/NAME.json` to the bundle.

    An engine that was built before from the same graph, for the same shapes, with the same options and versions, is
    taken from the user's cache.

    Args:
        bundle: the bundle's directory.
        engine: "tensorrt-rtx", whose builder needs no GPU, or "tensorrt", whose builder times kernels on the GPU.
        variant: the variant to compile; its precision is the engine's.
        stage: the stage to compile.
        shapes: sizes of axes, as `AXIS=MIN:OPT:MAX` or `AXIS=SIZE`; an axis given several times makes as many profiles;
            see `runtimes.profiles.parse_shapes`.
        compute_capabilities: GPUs that an engine of TensorRT-RTX shall run on, by default `8.9` alone.
        refit: let weights be replaced later; needs a GPU, also with TensorRT-RTX.
        strip_weights: leave the weights out; they are put in from the variant's ONNX file when the engine is loaded.
            Needs a GPU, also with TensorRT-RTX.
        hardware_compatible: TensorRT only: for all GPUs from Ampere on.
        version_compatible: TensorRT only: for later versions of the same major one.
        name: name of the engine, by default `VARIANT-rtx` or `VARIANT-trt`, with the stage where it is not `full`.
        force: replace an engine of that name.

    Raises:
        UsageError: an option that cannot be used.
        BundleError: no such bundle, variant or stage, a variant that is not for this engine, or a name that is taken.
        ExportError: TensorRT refuses the graph, or the model cannot run at these sizes.
        MissingError: the library is not installed, or it needs a GPU to build.
        In each case the bundle is left as it was.
    """
    family = engine_family(engine)
    name = _checked_name(name or "-".join([variant, *([] if stage == "full" else [stage]), family.suffix]))
    if compute_capabilities is None:
        compute_capabilities = [DEFAULT_CAPABILITY] if family.ahead_of_time else []
    capabilities = dict.fromkeys(map(parse_compute_capability, compute_capabilities))
    options = BuildOptions(tuple(capabilities), refit, strip_weights, hardware_compatible, version_compatible)
    options.require_buildable(family)
    with changed_bundle(bundle) as (staging, opened):
        if name in opened.manifest.engines and not force:
            raise BundleError(f"{bundle} has an engine {name!r} already. Choose another name, or replace it: --force.")
        onnx = _source(opened, variant, stage, family)
        axes = opened.manifest.axes
        sizes = parse_shapes(shapes, axes)
        profiles = [input_profile(opened.manifest.stages[stage], each) for each in sizes]
        log.info("Building %s from %s with %s", name, onnx, family.title)
        built, reused = build_or_reuse(opened.file(onnx), opened.graph_digest(onnx), family, profiles, options)
        facts = {
            "engine": family.name,
            "variant": variant,
            "stage": stage,
            "precision": opened.variant(variant).precision,
            "onnx": {"file": onnx, "sha256": opened.manifest.files[onnx].sha256, "data": _weights(opened, onnx)},
            "compute_capabilities": _targets(family, options),
            "os": {"system": platform.system(), "machine": platform.machine()},
            "driver": driver_version(),
            **_profile_facts(sizes, profiles),
            "attentions": _attentions(opened, variant, stage),
            **built.facts,
        }
        side_car = SideCar.model_validate(facts)
        log.info("Built in %.1f s: %.1f MB", facts["seconds"], len(built.content) / 1e6)
        added = Engine(variant=variant, stage=stage, file=f"engines/{name}.engine")
        builder_log = f"reports/{name}.builder.log.gz"
        staging.path(added.file).write_bytes(built.content)
        staging.path(f"engines/{name}.json").write_text(side_car.to_json(), encoding="utf-8")
        staging.path(builder_log).write_bytes(gzip.compress(built.log.encode(), mtime=0))
        engines = {**opened.manifest.engines, name: added}
        staging.finish(opened.manifest.model_copy(update={"engines": engines}))
    return BuildResult(str(bundle), name, variant, added.file, len(built.content), reused, builder_log, facts)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"Engine name {name!r} cannot name a file; expected letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit."
        )
    return name


def _source(bundle: Bundle, variant: str, stage: StageName, family: Family) -> str:
    """Path in the bundle of the ONNX file to compile."""
    chosen, runtime = bundle.variant(variant), RUNTIMES[family.name]
    if not runtime.can_run(chosen.runtimes):
        suited = [name for name, other in bundle.manifest.variants.items() if runtime.can_run(other.runtimes)]
        raise BundleError(
            f"Variant {variant!r} is for {', '.join(chosen.runtimes)}, not for {family.name}. "
            f"Variants that are: {', '.join(suited) or 'none'}."
        )
    if stage not in chosen.files:
        raise BundleError(
            f"Variant {variant!r} has the stages {', '.join(chosen.files)}, not {stage!r}. Choose one with --stage, "
            "or export the checkpoint again with: --split"
        )
    return chosen.files[stage]


def _targets(family: Family, options: BuildOptions) -> list[str]:
    if family.ahead_of_time:
        return [capability_text(capability) for capability in options.compute_capabilities]
    return [require_gpu(f"Building a {family.title} engine").compute_capability]


def _weights(bundle: Bundle, onnx: str) -> dict[str, str]:
    """Digests of the files that the graph reads its weights from, which its own digest does not cover."""
    names = [file.relative_to(bundle.path).as_posix() for file in external_files(bundle.path / onnx)]
    return {name: bundle.manifest.files[name].sha256 for name in names}


def _profile_facts(sizes: Sequence[dict[str, Sizes]], profiles: Sequence[Profile]) -> dict[str, Any]:
    return {
        "axes": [{axis: values._asdict() for axis, values in each.items()} for each in sizes],
        "shape_profiles": [{name: shapes._asdict() for name, shapes in profile.items()} for profile in profiles],
    }


def _attentions(bundle: Bundle, variant: str, stage: StageName) -> list[dict[str, Any]]:
    """Which attentions have a form that TensorRT documents a fused kernel for, by the graph; the log does not say."""
    return [
        {
            "module": each.module,
            "count": each.count,
            "fusible": each.fuses["tensorrt"] == FUSED,
            "why_not": None if each.fuses["tensorrt"] == FUSED else each.fuses["tensorrt"],
        }
        for each in bundle.variant(variant).recipe.graph(stage).attentions
    ]
