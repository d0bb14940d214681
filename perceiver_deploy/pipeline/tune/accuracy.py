"""Whether a way of running a bundle keeps the task's metric: by what the manifest says, or by measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.data.metrics import Run, collect_outputs
from perceiver_deploy.errors import BoundError, BundleError
from perceiver_deploy.evaluate.accuracy.agreement import Sqnr, judge_outputs
from perceiver_deploy.evaluate.accuracy.contract import Judgement, MaxDrop
from perceiver_deploy.evaluate.accuracy.losses import Loss
from perceiver_deploy.pipeline.convert.trials import read_judgement
from perceiver_deploy.pipeline.samples.held_out import HeldOut
from perceiver_deploy.pipeline.tune.tryout import AccuracyCheck, coarser_precision
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.catalogue import EAGER
from perceiver_deploy.runtimes.opening import load
from perceiver_deploy.runtimes.way import Way
from perceiver_deploy.strict import first_problem


def accuracy_check(bundle: Bundle, contract: MaxDrop | None, held_out: HeldOut | None) -> AccuracyCheck | None:
    """What ways of running are held to, on held-out data where there are any; nothing without a contract.

    Raises:
        InputError, BundleError, MissingError: eager cannot be run.
    """
    if contract is None:
        return None
    if held_out is None:
        return lambda way, run: _require_stated(bundle, contract, way)
    log.info("Running eager on %d examples of %s", len(held_out.split), held_out.name)
    with load(bundle, runtime=EAGER) as session:
        eager = collect_outputs(session.run, held_out.split)
    return lambda way, run: _require_measured(contract, held_out, eager, run)


def _require_stated(bundle: Bundle, contract: MaxDrop, way: Way) -> None:
    """float32 is held to parity alone; of the rest, what the manifest says was lost in this runtime."""
    if coarser_precision(bundle, way) == "fp32":
        return
    judged = {} if way.settings.hint != "f32" else _stated(bundle, way.variant)
    if way.runtime not in judged:
        raise BoundError(
            f"Nothing says that {way.variant} with the hint {way.settings.hint} keeps max-drop {contract} in "
            f"{way.runtime}. Convert it with --max-drop, or tune with --data."
        )
    _require(Judgement({way.runtime: judged[way.runtime]}), contract)


def _stated(bundle: Bundle, variant: str) -> Mapping[str, Sequence[Loss | Sqnr]]:
    """What a variant lost by its recipe, by runtime."""
    contract = bundle.variant(variant).recipe.contract
    if contract is None:
        return {}
    try:
        return read_judgement(contract["after"]).found
    except (KeyError, TypeError, ValidationError) as error:
        problem = first_problem(error, "after") if isinstance(error, ValidationError) else "there is no 'after'"
        raise BundleError(
            f"The recipe of {variant} in {bundle.path} has a contract that convert did not write: {problem}. Convert "
            "it again with --max-drop and --force, or tune with --data."
        ) from None


def _require_measured(contract: MaxDrop, held_out: HeldOut, eager: Arrays, run: Run) -> None:
    outputs = collect_outputs(run, held_out.split)
    _require(Judgement({"here": judge_outputs(outputs, eager, held_out.split, held_out.metrics)}), contract)


def _require(judged: Judgement, contract: MaxDrop) -> None:
    if breaches := judged.breaches(contract):
        raise BoundError(f"Beyond max-drop {contract}: {'; '.join(breaches)}.")
