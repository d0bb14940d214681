"""The ranges that a stage is quantised with: given, kept in the bundle from an earlier conversion, or measured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx_ir as ir

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import StageName
from perceiver_deploy.cache import Store
from perceiver_deploy.errors import InputError
from perceiver_deploy.export.calibration.histogram import Histogram
from perceiver_deploy.export.calibration.observation import fill, largest_batch
from perceiver_deploy.export.calibration.partial_results import Statistic
from perceiver_deploy.export.calibration.ranges import Ranges, TensorRange, choose_ranges, graph_digest, read_ranges
from perceiver_deploy.export.calibration.thresholds import Method
from perceiver_deploy.pipeline.samples.calibration import CalibrationData
from perceiver_deploy.progress import log

PARTIAL = Store("calibration", ".npz")
MOST_ROWS = 32


@dataclass(frozen=True)
class Calibrator:
    """Finds or measures ranges. `given`: files that must be used; each has to fit a stage."""

    bundle: Bundle
    data: CalibrationData
    method: Method
    given: Sequence[Path] = ()

    def ranges(self, stage: StageName, graph: Path, tensors: Sequence[str]) -> Ranges:
        """Ranges of tensors of a stage's graph.

        Raises:
            InputError: given files of which none is of this graph, data and method with ranges of all tensors.
            InputError, ExportError: as `fill`.
        """
        wanted = Ranges(
            method=self.method,
            samples=len(self.data.samples),
            graph_sha256=graph_digest(graph),
            data_sha256=self.data.sha256,
            tensors={},
        )
        if self.given:
            return self._given(wanted, stage, tensors)
        for name, found in self._kept(stage):
            if reason := difference(found, wanted) or _lacking(found, tensors):
                log.info("Ranges of %s: %s is of %s and is not used", stage, name, reason)
                continue
            log.info("Ranges of %s: %s is of the same graph, data and method and is used again", stage, name)
            return found
        return wanted.model_copy(update={"tensors": self._measure(wanted, stage, graph, tensors)})

    def _kept(self, stage: StageName) -> Iterator[tuple[str, Ranges]]:
        """What the bundle has of any variant, but for files of another version."""
        variants = self.bundle.manifest.variants.values()
        files = {ranges_file(variant.files[stage]) for variant in variants if stage in variant.files}
        for name in self.bundle.manifest.files:
            if name in files:
                try:
                    yield name, read_ranges(self.bundle.file(name))
                except InputError as error:
                    log.warning("%s It is not used.", error)

    def _given(self, wanted: Ranges, stage: StageName, tensors: Sequence[str]) -> Ranges:
        found = {path: read_ranges(path) for path in self.given}
        differences = {path: difference(given, wanted) or _lacking(given, tensors) for path, given in found.items()}
        for path, reason in differences.items():
            if not reason:
                log.info("Ranges of %s: from %s", stage, path)
                return found[path]
        reasons = "; ".join(f"{path} is of {reason}" for path, reason in differences.items())
        raise InputError(
            f"No given file has the ranges of {stage}: {reasons}. Convert with the graph, data and method that they "
            "were measured with, or leave --ranges out to measure them again: perceiver-deploy convert "
            f"{self.bundle.path} --precision int8 --calibration DATA."
        )

    def _measure(self, wanted: Ranges, stage: StageName, graph: Path, tensors: Sequence[str]) -> dict[str, TensorRange]:
        log.info("Calibrating %s on %d samples by %s", stage, wanted.samples, wanted.method)
        histograms = {name: Histogram() for name in tensors}
        self.fill(histograms, stage, graph)
        return choose_ranges(histograms, self.method)

    def fill(self, statistics: Mapping[str, Statistic], stage: StageName, graph: Path) -> None:
        """`calibration.fill` on the data, going on where a killed run was.

        Raises:
            InputError, ExportError: as `fill`.
        """
        rows = self.rows(stage, graph, statistics)
        kinds = [f"{type(statistic).__name__} {name}" for name, statistic in statistics.items()]
        key = hashlib.sha256("\n".join([graph_digest(graph), self.data.sha256, str(rows), *kinds]).encode())
        fill(
            statistics,
            graph,
            lambda: self.data.batches(stage, rows),
            count=-(-len(self.data.samples) // rows),
            partial=PARTIAL.path(key.hexdigest()),
        )

    def rows(self, stage: StageName, graph: Path, tensors: Iterable[str]) -> int:
        """How many samples to run at a time, by the largest of these tensors."""
        sample = next(iter(self.data.batches(stage, 1)))
        return largest_batch(ir.load(graph), [*tensors], sample, MOST_ROWS)


def difference(found: Ranges, wanted: Ranges) -> str:
    """In what ranges are not those wanted, or nothing."""
    pairs = {
        "another graph": (found.graph_sha256[:12], wanted.graph_sha256[:12]),
        "other data": (found.data_sha256[:12], wanted.data_sha256[:12]),
        "another method": (found.method, wanted.method),
    }
    return ", ".join(f"{what} ({had}; this one: {has})" for what, (had, has) in pairs.items() if had != has)


def _lacking(found: Ranges, tensors: Sequence[str]) -> str:
    """Which tensors have no range, or nothing."""
    lacking = [name for name in tensors if name not in found.tensors]
    return f"fewer tensors ({lacking[0]!r} and {len(lacking) - 1} more have no range)" if lacking else ""


def ranges_file(graph: str) -> str:
    """Where the ranges of a graph of a bundle are kept."""
    return f"calibration/{PurePosixPath(graph).stem}.json"
