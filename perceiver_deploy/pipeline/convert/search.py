"""The accuracy contract of a conversion: layers are returned to float32 until the metric does not fall by more.

First nothing is returned. If that does not keep the contract, each layer (the products of one module) is returned alone
to see what the outputs gain, and the layers are ranked by it; then the least number of layers from the head of the
ranking is sought that keeps the contract: 1, 2, 4 ... until one does, and between the last two by bisection.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import StageName, graph_file
from perceiver_deploy.cache import Store
from perceiver_deploy.errors import BoundError, ExportError
from perceiver_deploy.evaluate.accuracy.agreement import LEAST_SQNR_DB
from perceiver_deploy.evaluate.accuracy.contract import Judgement, MaxDrop
from perceiver_deploy.pipeline.convert.plan import Conversion
from perceiver_deploy.pipeline.convert.trials import Findings, Trials, judging_runtimes
from perceiver_deploy.pipeline.samples.held_out import HeldOut
from perceiver_deploy.progress import log, track
from perceiver_deploy.runtimes.tuned import Environment

SEARCHES = Store("contracts", ".json")
METHOD = "layers ranked by the SQNR that the outputs gain when one is in float32; the fewest of them by bisection"


@dataclass(frozen=True)
class MixedPrecision:
    """What a search chose, and what it loses: it keeps the contract, or is the best of those that do not.

    Attributes:
        max_drop: the contract.
        held_out: what it was judged on.
        float32: the modules that were returned to float32, the most sensitive first.
        keep: their nodes.
        before: the judgement of the variant with nothing returned.
        after: that of the choice.
        sqnr_db: of the outputs, with one module in float32; nothing where no ranking was needed.
        attempts: how many mixed precisions were judged.
    """

    max_drop: MaxDrop
    held_out: HeldOut
    float32: tuple[str, ...]
    keep: Mapping[StageName, Sequence[str]]
    before: Judgement
    after: Judgement
    sqnr_db: Mapping[str, float]
    attempts: int

    def to_recipe(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {
            "max_drop": str(self.max_drop),
            "held_out": {
                "name": Path(self.held_out.name).name,
                "sha256": self.held_out.sha256,
                "rows": len(self.held_out.split),
                "labels": self.held_out.metrics is not None,
            },
            "method": METHOD,
            "float32": list(self.float32),
            "nodes": {stage: list(nodes) for stage, nodes in self.keep.items()},
            "sqnr_db": dict(self.sqnr_db),
            "attempts": self.attempts,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }

    def lines(self) -> list[str]:
        """For people."""
        returned = ", ".join(self.float32) or "no layer"
        first = f"at most {self.max_drop} is lost on {self.held_out.name}: kept with {returned} returned to float32"
        return [first, *self.after.lines()]


class ContractError(BoundError):
    """No mixed precision keeps the contract; `best` is the one that is beyond it by least."""

    def __init__(self, message: str, best: MixedPrecision) -> None:
        super().__init__(message)
        self.best = best

    def to_json(self) -> dict[str, Any]:
        """A plain dict: what the manifest would say of the best, and what of it is beyond the contract."""
        return {"contract": self.best.to_recipe(), "breaches": self.best.after.breaches(self.best.max_drop)}


def keep_contract(max_drop: MaxDrop, held_out: HeldOut, conversion: Conversion, bundle: Bundle) -> MixedPrecision:
    """Find out which layers have to be in float32.

    Raises:
        ContractError: the contract is not kept with all layers but one returned.
        BundleError: the bundle has no weights to run eager with.
        MissingError: nothing here can judge the variant.
    """
    runtimes = judging_runtimes(conversion.runtimes)
    findings = Findings(SEARCHES.path(_key(held_out, conversion, bundle, runtimes)))
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(bundle, held_out, runtimes, conversion.rows)
        kept = _Search(max_drop, held_out, conversion, trials, findings, Path(folder)).run()
    findings.remove()
    return kept


@dataclass
class _Search:
    max_drop: MaxDrop
    held_out: HeldOut
    conversion: Conversion
    trials: Trials
    findings: Findings
    folder: Path
    attempts: dict[int, Judgement] = field(default_factory=dict)
    sqnr_db: dict[str, float] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    def run(self) -> MixedPrecision:
        if self._holds(0):
            return self._choice(0)
        self._rank()
        failed, count, most = 0, 1, len(self.order) - 1
        while not (most and self._holds(count)):
            if count >= most:
                raise self._failure()
            failed, count = count, min(2 * count, most)
        while count - failed > 1:
            middle = (failed + count) // 2
            failed, count = (failed, middle) if self._holds(middle) else (middle, count)
        return self._choice(count)

    def _holds(self, count: int) -> bool:
        modules = self.order[:count]
        log.info("Judging with %d layers returned to float32", count)
        try:
            judged = self.findings.judgement(
                f"judged {' '.join(sorted(modules))}", lambda: self.trials.judge(self._write(modules))
            )
        except ExportError as error:
            if not count:
                raise
            log.info("%s", error)  # nothing of reduced precision is left
            return False
        self.attempts[count] = judged
        breaches = judged.breaches(self.max_drop)
        for line in breaches:
            log.info("Beyond %s: %s", self.max_drop, line)
        return not breaches

    def _rank(self) -> None:
        modules = [*dict.fromkeys(module for layers in self._layers.values() for module in layers)]
        for module in track(modules, "Ranking layers", len(modules)):
            try:
                self.sqnr_db[module] = self._sqnr(module)
            except ExportError:  # nothing of reduced precision would be left
                log.info("%s cannot be returned", module)
                continue
            log.info("With %s in float32 the outputs have %.2f dB", module, self.sqnr_db[module])
        self.order = tuple(sorted(self.sqnr_db, key=self.sqnr_db.__getitem__, reverse=True))

    def _sqnr(self, module: str) -> float:
        return self.findings.sqnr(f"without {module}", lambda: self.trials.sqnr(self._write([module])))

    @cached_property
    def _layers(self) -> dict[StageName, dict[str, list[str]]]:
        """Nodes of reduced precision by stage and module; those of no module are by themselves."""
        found: dict[StageName, dict[str, list[str]]] = {}
        for stage, converter in self.conversion.stages.items():
            in_float32 = converter.convert(self._files[stage]).in_float32
            found[stage] = {}
            for node, module in converter.products.items():
                if node not in in_float32:
                    found[stage].setdefault(module or node, []).append(node)
        return found

    def _nodes(self, modules: Sequence[str]) -> dict[StageName, list[str]]:
        return {
            stage: [node for module in modules for node in layers.get(module, [])]
            for stage, layers in self._layers.items()
        }

    def _write(self, modules: Sequence[str]) -> dict[StageName, Path]:
        keep = self._nodes(modules) if modules else {}
        for stage, converter in self.conversion.stages.items():
            converter.convert(self._files[stage], keep.get(stage, ()))
        return self._files

    @cached_property
    def _files(self) -> dict[StageName, Path]:
        """Where each attempt is written, over the one before."""
        variant = self.conversion.variant
        return {stage: self.folder / Path(graph_file(variant, stage)).name for stage in self.conversion.stages}

    def _choice(self, count: int) -> MixedPrecision:
        modules = self.order[:count]
        return MixedPrecision(
            max_drop=self.max_drop,
            held_out=self.held_out,
            float32=modules,
            keep={stage: nodes for stage, nodes in self._nodes(modules).items() if nodes} if modules else {},
            before=self.attempts[0],
            after=self.attempts[count],
            sqnr_db=self.sqnr_db,
            attempts=len(self.attempts),
        )

    def _failure(self) -> ContractError:
        count = min(self.attempts, key=lambda tried: self.attempts[tried].excess(self.max_drop))
        best = self._choice(count)
        return ContractError(
            f"No mixed precision keeps max-drop {self.max_drop} of {self.conversion.variant} on {self.held_out.name}. "
            f"The best has {count} of {len(self.order)} layers in float32 ({', '.join(best.float32) or 'none'}): "
            f"{'; '.join(best.after.breaches(self.max_drop))}. Nothing was written. Allow a larger drop, or use "
            "another method or precision.",
            best,
        )


def _key(held_out: HeldOut, conversion: Conversion, bundle: Bundle, runtimes: Sequence[str]) -> str:
    """What the results of a search belong to; the contract itself is none of it."""
    source = bundle.variant("fp32").files
    parts = {
        "graphs": [bundle.graph_digest(file) for file in source.values()],
        "variant": conversion.variant,
        "recipe": conversion.recipe,
        "ranges": {stage: ranges.model_dump() for stage, ranges in conversion.ranges.items()},
        "held_out": [held_out.sha256, held_out.metrics is not None],
        "least_sqnr_db": LEAST_SQNR_DB,
        "runtimes": list(runtimes),
        "environment": Environment.here().packages,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
