"""Choose the runtime and the variant of a bundle and open a session."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Stage, StageName, Variant
from perceiver_deploy.errors import BundleError, MissingError, ParityError, UsageError
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.catalogue import (
    EAGER,
    GPU_RUNTIMES,
    RUNTIMES,
    Runtime,
    installed_runtimes,
    runtime_named,
)
from perceiver_deploy.runtimes.conformance import ConformanceCheck, Route
from perceiver_deploy.runtimes.nvidia.families import FAMILIES
from perceiver_deploy.runtimes.nvidia.gpu import find_gpus
from perceiver_deploy.runtimes.nvidia.requirements import missing_pieces
from perceiver_deploy.runtimes.nvidia.side_car import find_engine
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.settings import RuntimeSettings
from perceiver_deploy.runtimes.stages.queries import answer_queries
from perceiver_deploy.runtimes.stages.staged import StagedSession
from perceiver_deploy.runtimes.tuned import tuned_choice


def runtimes_here(bundle: Bundle, variant: str) -> list[str]:
    """Runtimes that can execute a variant here, on the CPU or on a GPU, with an engine where one is needed."""
    suited, files = set(bundle.variant(variant).runtimes), bundle.variant(variant).files
    found: list[str] = [name for name in installed_runtimes() if name in suited]
    if find_gpus().problem is not None:
        return found
    for name in GPU_RUNTIMES:
        if not RUNTIMES[name].can_run(suited) or missing_pieces(name):
            continue
        if name not in FAMILIES or all(find_engine(bundle, name, variant, stage) for stage in files):
            found.append(name)
    return found


def load(
    bundle: str | Path | Bundle,
    runtime: str = "auto",
    variant: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    settings: RuntimeSettings | None = None,
    allow_nonconforming: bool = False,
) -> Session:
    """Open a session on a bundle.

    The first time that a variant is opened in a runtime, in this version on this processor, one golden sample is run
    and compared with what the variant's graph gives exactly; the verdict is kept in the user's cache.

    Args:
        bundle: the bundle's directory.
        runtime: "onnxruntime", "openvino", "torch" (the source model, eager), or "auto": what `tune` chose for this
            bundle on this machine; where it was not tuned, the first of the CPU that is installed and that the variant
            is for. On an NVIDIA GPU: "tensorrt" and "tensorrt-rtx" (an engine that `build` added), "onnxruntime-cuda",
            "onnxruntime-tensorrt", "onnxruntime-tensorrt-rtx".
        variant: name of the variant; by default the one that `tune` chose with `runtime` "auto", otherwise `fp32`.
        precision: shorthand for the first variant of that precision.
        threads: number of threads; by default that of `tune`, otherwise the runtime's own choice. Shorthand for
            `settings=RuntimeSettings(threads=threads)`, but for the tuning.
        settings: how to run; given, the tuning is not used.
        allow_nonconforming: open what does not give the numbers of its graph here, too; `Session.conforms` says so.

    Raises:
        BundleError: no such bundle or variant, or a file that was changed.
        MissingError: the runtime is not installed, what it needs of a GPU is not here, or the processor does not have
            the precision of the hint.
        UsageError: arguments that contradict each other, or values that cannot be used.
        ParityError: the runtime does not give the numbers of the variant's graph on this processor.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if threads is not None and settings is not None:
        raise UsageError("Give threads or settings, not both: RuntimeSettings has threads.")
    name = _variant_name(opened, variant, precision)
    chosen = tuned_choice(opened, name, threads) if runtime == "auto" and settings is None else None
    if chosen is not None:
        try:
            return load(opened, chosen.runtime, chosen.variant, settings=chosen.settings)
        except ParityError as error:
            log.warning("The tuning is ignored. %s", error)
    name, settings = name or "fp32", settings or RuntimeSettings(threads=threads)
    check = ConformanceCheck(opened, name, allow_nonconforming)
    session = _open_first(_runtimes_to_try(runtime, opened.variant(name), name), opened, name, settings, check)
    session.variant = name
    return session


def _open_first(
    runtimes: Sequence[Runtime], bundle: Bundle, name: str, settings: RuntimeSettings, check: ConformanceCheck
) -> Session:
    """A session in the first of the runtimes that conforms."""
    for runtime in runtimes:
        try:
            return _open(runtime, bundle, name, settings, check)
        except ParityError as error:
            if runtime == runtimes[-1]:
                raise
            log.warning("%s The next runtime is tried.", error)
    raise AssertionError("there is a runtime to try")


def _open(runtime: Runtime, bundle: Bundle, name: str, settings: RuntimeSettings, check: ConformanceCheck) -> Session:
    """A session in a runtime, held to the numbers of the variant's graph; eager is what these are held to."""
    manifest = bundle.manifest
    open_stage = importlib.import_module(runtime.home).open_stages(runtime.name, bundle, name, settings)
    if runtime.name == EAGER:
        return _staged(bundle, manifest.stages, open_stage, lambda _: None)
    stages = {stage: manifest.stages[stage] for stage in bundle.variant(name).files}
    session = _staged(bundle, stages, open_stage, lambda session: _check_stages(session, check))
    try:
        route: Route = "full" if "full" in stages else "stages"
        verdict = check.require(session, route, session.run)
    except BaseException:
        session.close()
        raise
    session.conforms = None if verdict is None else verdict.conforms
    return session


def _staged(
    bundle: Bundle,
    stages: Mapping[StageName, Stage],
    open_stage: Callable[[StageName], Session],
    check_stages: Callable[[Session], None],
) -> Session:
    if stages.keys() == {"full"}:
        return open_stage("full")
    return StagedSession(bundle.manifest.stages["full"], bundle.manifest.axes, stages, open_stage, check_stages)


def _check_stages(session: Session, check: ConformanceCheck) -> None:
    verdict = check.require(session, "stages", lambda inputs: answer_queries(session, inputs, lambda count: count))
    if verdict is not None and not verdict.conforms:
        session.conforms = False


def _variant_name(bundle: Bundle, variant: str | None, precision: str | None) -> str | None:
    if variant is not None and precision is not None:
        raise UsageError(f"Give variant ({variant!r}) or precision ({precision!r}), not both.")
    if precision is None:
        return variant
    for name, candidate in bundle.manifest.variants.items():
        if candidate.precision == precision:
            return name
    raise BundleError(
        f"{bundle.path} has no variant of precision {precision!r}; it has {', '.join(bundle.manifest.variants)}. "
        f"Add one with: perceiver-deploy convert {bundle.path} --precision {precision}"
    )


def _runtimes_to_try(runtime: str, variant: Variant, name: str) -> list[Runtime]:
    """The one that was asked for; with "auto" all of the CPU that a variant is for."""
    suited = ", ".join(variant.runtimes)
    if runtime == "auto":
        if found := [RUNTIMES[known] for known in installed_runtimes() if known in variant.runtimes]:
            return found
        raise MissingError(
            f"Variant {name!r} is for {suited}, and none of them is installed for the CPU. "
            "Install them with: pip install 'perceiver-deploy[cpu]'"
        )
    record = runtime_named(runtime)
    if runtime == EAGER and variant.precision != "fp32":
        raise UsageError(
            f"Runtime {EAGER!r} runs the source model in fp32; variant {name!r} is {variant.precision}. "
            f"Run it with {suited}, or leave the variant out."
        )
    if runtime != EAGER and not record.can_run(variant.runtimes):
        raise BundleError(f"Variant {name!r} is for {suited}, not for {runtime}.")
    return [record]
