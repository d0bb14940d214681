"""Build: add a compiled TensorRT engine to a bundle."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.bundle import Bundle, changed_bundle
from perceiver_deploy.errors import BundleError, MissingError, UsageError
from perceiver_deploy.export.engine import build_engine_bytes, capability_text, parse_compute_capability
from perceiver_deploy.export.profiles import Profile, Sizes, input_profile, parse_shapes
from perceiver_deploy.manifest import Engine
from perceiver_deploy.onnx_header import external_files
from perceiver_deploy.progress import log

ENGINE_FAMILY = "tensorrt-rtx"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DRIVER_VERSION = Path("/sys/module/nvidia/version")


@dataclass
class BuildResult:
    """What a build did. `facts` is what the side-car holds."""

    bundle: str
    name: str
    variant: str
    file: str
    engine_bytes: int
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return dict(self.__dict__)


def build_engine(
    bundle: str | Path,
    *,
    engine: str = ENGINE_FAMILY,
    variant: str = "fp32",
    shapes: Sequence[str] = (),
    compute_capabilities: Sequence[str] = ("8.9",),
    name: str | None = None,
    force: bool = False,
) -> BuildResult:
    """Compile a variant and add `engines/NAME.engine` with its side-car `engines/NAME.json` to the bundle.

    Args:
        bundle: the bundle's directory.
        engine: "tensorrt-rtx"; its builder needs no GPU.
        variant: the variant to compile; its precision is the engine's.
        shapes: sizes of axes, as `AXIS=MIN:OPT:MAX` or `AXIS=SIZE`; see `export.profiles.parse_shapes` for the rest.
        compute_capabilities: GPUs that the engine shall run on, as `8.9`.
        name: name of the engine, by default `VARIANT-rtx`.
        force: replace an engine of that name.

    Raises:
        UsageError: an option that cannot be used.
        BundleError: no such bundle or variant, a variant that is not for TensorRT-RTX, or a name that is taken.
        ExportError: TensorRT refuses the graph, or the model cannot run at these sizes.
        MissingError: TensorRT-RTX is not installed, or `engine` is not built by this version.
        In each case the bundle is left as it was.
    """
    _check_family(engine)
    name = _checked_name(name or f"{variant}-rtx")
    capabilities = list(dict.fromkeys(map(parse_compute_capability, compute_capabilities)))
    if not capabilities:
        raise UsageError("No compute capability is given; expected at least one, for example 8.9.")
    with changed_bundle(bundle) as (staging, opened):
        if name in opened.manifest.engines and not force:
            raise BundleError(f"{bundle} has an engine {name!r} already. Choose another name, or replace it: --force.")
        onnx = _source(opened, variant)
        sizes = parse_shapes(shapes, opened.manifest.axes)
        profile = input_profile(opened.manifest.stages["full"], sizes)
        log.info("Building %s from %s for %s", name, onnx, ", ".join(map(capability_text, capabilities)))
        data, facts = build_engine_bytes(opened.file(onnx), profile, capabilities)
        facts = {
            "engine": engine,
            "variant": variant,
            "stage": "full",
            "precision": opened.variant(variant).precision,
            "onnx": {"file": onnx, "sha256": opened.manifest.files[onnx].sha256, "data": _weights(opened, onnx)},
            "compute_capabilities": [capability_text(capability) for capability in capabilities],
            "os": {"system": platform.system(), "machine": platform.machine()},
            "driver": _driver_version(),
            **_profile_facts(sizes, profile),
            **facts,
        }
        log.info("Built in %.1f s: %.1f MB", facts["seconds"], len(data) / 1e6)
        added = Engine(variant=variant, stage="full", file=f"engines/{name}.engine")
        staging.path(added.file).write_bytes(data)
        staging.path(f"engines/{name}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        engines = {**opened.manifest.engines, name: added}
        staging.finish(opened.manifest.model_copy(update={"engines": engines}))
    return BuildResult(str(bundle), name, variant, added.file, len(data), facts)


def _check_family(engine: str) -> None:
    if engine == "tensorrt":
        raise MissingError(
            f"Engines of the package 'tensorrt' are not built by this version, which builds {ENGINE_FAMILY} only. "
            f"Use --engine {ENGINE_FAMILY}, or give the variant's ONNX file to trtexec."
        )
    if engine != ENGINE_FAMILY:
        raise UsageError(f"There is no engine {engine!r}; expected {ENGINE_FAMILY}.")


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"Engine name {name!r} cannot name a file; expected letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit."
        )
    return name


def _source(bundle: Bundle, variant: str) -> str:
    """Path in the bundle of the ONNX file to compile."""
    chosen = bundle.variant(variant)
    if ENGINE_FAMILY not in chosen.runtimes:
        suited = [name for name, other in bundle.manifest.variants.items() if ENGINE_FAMILY in other.runtimes]
        raise BundleError(
            f"Variant {variant!r} is for {', '.join(chosen.runtimes)}, not for {ENGINE_FAMILY}. "
            f"Variants that are: {', '.join(suited) or 'none'}."
        )
    if "full" not in chosen.files:
        raise BundleError(
            f"Variant {variant!r} has the stages {', '.join(chosen.files)}; engines are built from a variant with "
            "the stage full."
        )
    return chosen.files["full"]


def _weights(bundle: Bundle, onnx: str) -> dict[str, str]:
    """Digests of the files that the graph reads its weights from, which its own digest does not cover."""
    names = [file.relative_to(bundle.path).as_posix() for file in external_files(bundle.path / onnx)]
    return {name: bundle.manifest.files[name].sha256 for name in names}


def _profile_facts(sizes: dict[str, Sizes], profile: Profile) -> dict[str, Any]:
    return {
        "axes": {axis: values._asdict() for axis, values in sizes.items()},
        "shape_profiles": [{name: shapes._asdict() for name, shapes in profile.items()}],
    }


def _driver_version() -> str | None:
    """Version of NVIDIA's kernel driver, or None when there is none (or the system is not Linux)."""
    try:
        return _DRIVER_VERSION.read_text(encoding="ascii").strip()
    except OSError:
        return None
