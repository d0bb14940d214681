"""Does each runtime give the numbers of each variant's own graph on this processor?

Shipped models in every precision replay their golden samples. Of each variant and runtime the sample is kept on which
it is farthest from its graph in terms of what rounding explains, with the distance to eager. Writes
results/conformance.json, one entry for each kind of processor.

    python benchmarks/conformance.py --folder FOLDER [MODEL|BUNDLE ...]

Bundles of shipped models are made in FOLDER where they are not there. Other bundles, such as those that processors.py
makes of full-size models, are given by their path. To measure as on another processor see processors.py.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from peers.by_processor import record

from perceiver_deploy import convert_bundle, export_model, validate_bundle
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.data.datasets import DATA_SETS
from perceiver_deploy.evaluate.parity.verdicts import Verdict, finite_or_none
from perceiver_deploy.progress import log

RESULTS = Path(__file__).parent / "results" / "conformance.json"
TARGETS = (None, "cpu", "vnni")
UNCALIBRATED = ("fp16", "bf16", "int8-weights")


def prepare(model: str, path: Path) -> None:
    """A bundle with every variant."""
    if not path.exists():
        export_model(model, path)
    there = Bundle.open(path).manifest.variants
    for target in TARGETS:
        if ("int8" if target is None else f"int8-{target}") not in there:
            convert_bundle(path, calibration=model, target=target)  # type: ignore[arg-type]
    for precision in UNCALIBRATED:
        if precision not in there:
            convert_bundle(path, precision=precision)  # type: ignore[arg-type]


def measure(path: Path) -> dict[str, Any]:
    """The worst golden sample of each variant in each runtime."""
    worst: dict[str, Verdict] = {}
    for verdict in validate_bundle(path, golden=True).verdicts:
        name = f"{verdict.variant} in {verdict.runtime}"
        if verdict.stages == "full" and (name not in worst or _share(verdict) > _share(worst[name])):
            worst[name] = verdict
    return {
        name: {
            "sample": verdict.case,
            "off_eager": finite_or_none(verdict.figures.relative_l2),
            "off_graph": None if verdict.graph_error is None else finite_or_none(verdict.graph_error),
            "bound": verdict.graph_bound,
            "conforms": verdict.conforms,
            "passed": verdict.passed,
            "error": verdict.error,
        }
        for name, verdict in worst.items()
    }


def _share(verdict: Verdict) -> float:
    """Of what rounding explains; of fp32, whose graph gives what eager gives, of its bound against eager."""
    if verdict.graph_error is None or not verdict.graph_bound:
        return verdict.excess
    return verdict.graph_error / verdict.graph_bound


def main() -> None:
    """Replay the bundles of a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL|BUNDLE", help=", ".join(DATA_SETS))
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel("INFO")
    options.folder.mkdir(parents=True, exist_ok=True)
    for model in options.models or DATA_SETS:
        shipped = model in DATA_SETS
        path = options.folder / model if shipped else Path(model)
        if shipped:
            prepare(model, path)
        name, found = model if shipped else f"{path.parent.name}, full size", measure(path)
        record(RESULTS, name, found)
        for variant, row in found.items():
            log.info("%s %s: %s", name, variant, row)


if __name__ == "__main__":
    main()
