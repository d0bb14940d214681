"""Bisect: the first module whose result departs from the eager model's, and the error of every other."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Precision, Stage, StageName, TensorSpec
from perceiver_deploy.bundle.samples import Sample
from perceiver_deploy.errors import requires
from perceiver_deploy.evaluate.parity.verdicts import Figures, compare
from perceiver_deploy.runtimes.checks.bounds import BOUNDS, error_bound
from perceiver_deploy.runtimes.eager import load_source_model
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.stages.queries import all_queries

with requires("export", "Bisecting"):
    from perceiver_deploy.evaluate.parity.activations import Activations, record_activations
    from perceiver_deploy.export.graph.files import copy_model
    from perceiver_deploy.export.graph.taps import Tap, tap_modules
    from perceiver_deploy.model.stages import stage_module

_SAME = 1e-2
"""A result of the fp32 graph that is off by more is not the module's own: the graph computes it in another way."""

Call = tuple[str, int]
"""A module and which call of it, from 0: blocks that share a layer call it several times."""


@dataclass(frozen=True)
class ModuleError:
    """How the result of a module's call (from 1) departs from eager float64.

    `growth`: the error over the largest one of what it is computed from, or over what is usual if that is more: 10
    times eager float32's own for fp32, a tenth of the bound on outputs for other precisions.
    """

    stage: StageName
    module: str
    call: int
    relative_l2: float
    sqnr_db: float
    growth: float

    def __str__(self) -> str:
        """`encoder.self_attends.0.query (stage full, call 1)`."""
        return f"{self.module} (stage {self.stage}, call {self.call})"

    def to_json(self) -> dict[str, Any]:
        """A plain dict. What is not finite is None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Bisection:
    """The modules of a variant from the lowest SQNR to the highest, and the one where an error arises.

    `first` of fp32 is the first in the graph's order whose error is above its bound and reaches what reads it. Other
    precisions lose something everywhere: there it is the one whose error grows most. How much is too much depends on
    the inputs, as INT8 clips what is beyond its calibrated ranges: that is for the verdicts on the outputs to say.
    """

    variant: str
    precision: Precision
    runtime: str
    case: str
    first: ModuleError | None
    modules: tuple[ModuleError, ...]

    def __str__(self) -> str:
        """One sentence on the module where an error arises."""
        where = f"variant {self.variant} in {self.runtime} at case {self.case!r}"
        if self.first is None:
            return f"Bisect of {where}: no module departs."
        first = self.first
        what = "the first module that departs is" if self.precision == "fp32" else "the error grows most in"
        return (
            f"Bisect of {where}: {what} {first}, to relative L2 {first.relative_l2:.1e}, {first.growth:.3g} times that "
            "of what it reads, or the usual one."
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        modules = [module.to_json() for module in self.modules]
        return {**self.__dict__, "first": None if self.first is None else self.first.to_json(), "modules": modules}


def bisect(bundle: Bundle, variant: str, runtime: str, sample: Sample) -> Bisection:
    """Compare what modules give in the graphs of a variant and in the eager model, on the inputs of a sample.

    Only modules are compared whose result is there in the graph: what a rewrite computes in another way is not.

    Args:
        bundle: a bundle with its weights.
        variant: name of the variant.
        runtime: `onnxruntime` or `openvino`; for another, onnxruntime runs the graphs, and those in INT8: OpenVINO
            computes something else in INT8 where inner values are outputs too (2026.4).
        sample: the inputs.

    Raises:
        MissingError: torch or the packages that read graphs are not installed.
        BundleError: no such variant, or the bundle has no weights.
    """
    files, precision = bundle.variant(variant).files, bundle.variant(variant).precision
    runtime = runtime if runtime == "openvino" and precision != "int8" else "onnxruntime"
    stages: tuple[StageName, ...] = ("full",) if "full" in files else ("encoder", "decoder")
    found: list[ModuleError] = []
    first: ModuleError | None = None
    latents: Arrays = {}
    for name in stages:
        full, stage = bundle.manifest.stages["full"], bundle.manifest.stages[name]
        inputs = sample.inputs
        if name != "full":
            asked = {**all_queries(stage, full, inputs), **latents} if name == "decoder" else inputs
            inputs = {spec.name: asked[spec.name] for spec in stage.inputs}
        errors, culprit, outputs = _compare_stage(bundle, variant, runtime, name, inputs)
        latents = {spec.name: outputs[spec.name].astype(spec.dtype) for spec in stage.outputs}
        found += errors
        if culprit is not None and (first is None or (precision != "fp32" and culprit.growth > first.growth)):
            first = culprit
    ranked = sorted(found, key=lambda error: error.sqnr_db)
    return Bisection(variant, precision, runtime, sample.name, first, tuple(ranked))


def _compare_stage(
    bundle: Bundle, variant: str, runtime: str, name: StageName, inputs: Arrays
) -> tuple[list[ModuleError], ModuleError | None, Arrays]:
    model, stage, axes = load_source_model(bundle), bundle.manifest.stages[name], bundle.manifest.axes
    copied = stage_module(copy.deepcopy(model), name)
    double, outputs = record_activations(copied, stage, axes, inputs, double=True)
    single, _ = record_activations(stage_module(model, name), stage, axes, inputs, double=False)
    taps, arrays = _run_taps(bundle, variant, runtime, name, inputs)
    figures = _match(taps, arrays, double)
    chosen = bundle.variant(variant)
    if chosen.precision == "fp32":
        usual = {
            (module, call): error_bound("fp32", compare(single[module][call], double[module][call]).relative_l2)[0]
            for module, call in figures
        }
    else:
        same = _match(*_run_taps(bundle, chosen.source or "fp32", "onnxruntime", name, inputs), double)
        figures = {c: item for c, item in figures.items() if c in same and same[c][1].relative_l2 <= _SAME}
        usual = dict.fromkeys(figures, BOUNDS[chosen.precision] / 10)
    calls = {tap: call for call, (tap, _) in figures.items()}
    above = {call: _nearest(taps, tap, calls) for call, (tap, _) in figures.items()}
    rows = {
        call: ModuleError(
            name,
            call[0],
            call[1] + 1,
            found.relative_l2,
            found.sqnr_db,
            _growth(found.relative_l2, [figures[read][1].relative_l2 for read in above[call]], usual[call]),
        )
        for call, (_, found) in sorted(figures.items(), key=lambda item: item[1][0])
    }
    if chosen.precision != "fp32":
        return [*rows.values()], max(rows.values(), key=lambda row: row.growth, default=None), outputs
    good = {call for call, row in rows.items() if row.relative_l2 <= usual[call]}
    rewritten = _all_above(good, above) - good
    kept = {call: row for call, row in rows.items() if call not in rewritten}
    return [*kept.values()], next((row for call, row in kept.items() if call not in good), None), outputs


_ANY_SIZE = "tapped"
"""What no axis is called: the size of a tapped value is not held to anything."""


def _run_taps(
    bundle: Bundle, variant: str, runtime: str, name: StageName, inputs: Arrays
) -> tuple[list[Tap], list[NDArray[Any]]]:
    """The taps of a stage's graph and what they show."""
    stage, axes = bundle.manifest.stages[name], bundle.manifest.axes
    with tempfile.TemporaryDirectory() as folder:
        path, taps = tap_modules(copy_model(bundle.file(bundle.variant(variant).files[name]), Path(folder)))
        specs = tuple(TensorSpec(name=tap.output, dtype="float32", shape=(_ANY_SIZE,) * tap.rank) for tap in taps)
        with _session(runtime, path, Stage(inputs=stage.inputs, outputs=specs), axes) as session:
            outputs = session.run(inputs)
    return taps, [outputs[tap.output] for tap in taps]


def _session(runtime: str, path: Path, stage: Stage, axes: Mapping[str, Any]) -> Session:
    if runtime == "openvino":
        from perceiver_deploy.runtimes.cpu.openvino import OpenVinoSession

        return OpenVinoSession(path, stage, axes)
    from perceiver_deploy.runtimes.cpu.onnxruntime import OnnxRuntimeSession

    return OnnxRuntimeSession(path, stage, axes)


def _match(taps: list[Tap], arrays: list[NDArray[Any]], double: Activations) -> dict[Call, tuple[int, Figures]]:
    """For each call of a module the tap of its result: in order where there are as many, else the closest one."""
    found: dict[Call, tuple[int, Figures]] = {}
    for module, results in double.items():
        shape = results[0].shape
        places = [place for place, tap in enumerate(taps) if tap.module == module and arrays[place].shape == shape]
        for call, wanted in enumerate(results):
            among = [places[call]] if len(places) == len(results) else places
            figures = [(place, compare(arrays[place], wanted)) for place in among if wanted.shape == shape]
            if figures:
                found[module, call] = min(figures, key=lambda item: item[1].relative_l2)
    return found


def _nearest(taps: list[Tap], place: int, calls: Mapping[int, Call]) -> list[Call]:
    """The calls that are compared and that a tap is computed from, with no other between."""
    found, seen, waiting = list[Call](), set[int](), [*taps[place].reads]
    while waiting:
        read = waiting.pop()
        if read in seen:
            continue
        seen.add(read)
        if read in calls:
            found.append(calls[read])
        else:
            waiting += taps[read].reads
    return found


def _all_above(calls: set[Call], above: Mapping[Call, list[Call]]) -> set[Call]:
    """What calls are computed from, directly or not."""
    found, waiting = set[Call](), [*calls]
    while waiting:
        fresh = [read for read in above[waiting.pop()] if read not in found]
        found |= set(fresh)
        waiting += fresh
    return found


def _growth(error: float, before: list[float], usual: float) -> float:
    least = max([usual, *before])
    return 1.0 if math.isinf(least) else error / least
