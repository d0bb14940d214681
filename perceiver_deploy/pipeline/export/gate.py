"""The gate of an export: no bundle whose graph does not give the model's numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.bundle.bundle import Staging
from perceiver_deploy.bundle.manifest import Signature
from perceiver_deploy.bundle.preprocessing import Preprocessing
from perceiver_deploy.bundle.samples import Sample
from perceiver_deploy.evaluate.parity.grid import Case, shape_grid
from perceiver_deploy.evaluate.parity.reference import Reference
from perceiver_deploy.evaluate.parity.verdicts import Verdict, candidates_of, judge
from perceiver_deploy.export.graph.files import copy_model
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.session import Session

_GOLDEN_BYTES = 4 << 20


@dataclass(frozen=True)
class GateResult:
    """Samples that were run, verdicts on them, the sample that failed, and the cases left out for time."""

    samples: Sequence[Sample] = ()
    verdicts: Sequence[Verdict] = ()
    failed: Sample | None = None
    capped: Sequence[Case] = ()


def run_gate(
    reference: Reference,
    session: Session,
    signature: Signature,
    preprocessing: Preprocessing | None,
    seconds: float,
) -> GateResult:
    """Judge the stages of a session over the grid, up to the first failure."""
    samples, verdicts, capped = list[Sample](), list[Verdict](), list[Case]()
    candidates = candidates_of(session, "fp32", "fp32")
    for sample in reference.samples(shape_grid(signature), preprocessing, seconds):
        if isinstance(sample, Case):
            capped.append(sample)
            continue
        log.info("Parity gate: case %s", sample.name)
        samples.append(sample)
        found = judge(candidates, sample)
        verdicts += found
        if not all(verdict.passed for verdict in found):
            return GateResult(samples, verdicts, sample, capped)
    return GateResult(samples, verdicts, None, capped)


def write_samples(staging: Staging, samples: Sequence[Sample]) -> None:
    """Keep as golden samples those that are small, and the smallest in any case."""
    sizes = {
        sample.name: sum(a.nbytes for a in [*sample.inputs.values(), *sample.float64.values()]) for sample in samples
    }
    least = min(sizes.values())
    for sample in samples:
        if sizes[sample.name] <= max(_GOLDEN_BYTES, least):
            name = sample.name.replace(", ", "-").replace(" ", "-")
            sample.save(staging.path(f"samples/{name}.npz"))


def keep_evidence(path: Path, files: Sequence[Path], sample: Sample, verdicts: Sequence[Verdict]) -> str:
    """Put graphs, failing sample and verdicts into `PATH.failed/`, replacing those of an earlier failure; say where."""
    evidence = path.with_name(f"{path.name}.failed")
    if evidence.exists() and not (evidence / "parity.json").exists():
        return f"the evidence was not kept, because {evidence} holds something else"
    shutil.rmtree(evidence, ignore_errors=True)
    evidence.mkdir(parents=True)
    for file in files:
        copy_model(file, evidence)
    sample.save(evidence / "sample.npz")
    (evidence / "parity.json").write_text(
        json.dumps([verdict.to_json() for verdict in verdicts], indent=2) + "\n", encoding="utf-8"
    )
    return f"the evidence is in {evidence}"
