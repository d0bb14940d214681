"""What INT8 of each shipped model keeps of fp32 by each method of choosing thresholds, symmetric and `--for cpu`.

Models are calibrated on 256 training samples, as `convert` does, and compared on up to 256 rows of the test set, spread
evenly, in onnxruntime. Writes results/calibration_methods.json: SQNR in dB of each output, and the products that the
rules leave in float32.

    python benchmarks/calibration_methods.py [MODEL ...] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np

from perceiver_deploy import convert_bundle, export_model, load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.data.datasets import DATA_SETS, load_dataset
from perceiver_deploy.evaluate.parity.verdicts import compare
from perceiver_deploy.export.calibration.thresholds import Method
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.progress import log

RESULTS = Path(__file__).parent / "results" / "calibration_methods.json"
ROWS, BATCH = 256, 16


def outputs(bundle: Path, data: str, variant: str) -> dict[str, np.ndarray]:
    """Outputs of a variant in onnxruntime on rows of the test set."""
    test = load_dataset(data).test
    rows = np.unique(np.linspace(0, len(test) - 1, ROWS).astype(np.int64))
    with load(bundle, "onnxruntime", variant=variant, threads=1) as session:
        batches = [session.run(test.rows(rows[start : start + BATCH])) for start in range(0, len(rows), BATCH)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def measure(model: str, folder: Path) -> dict[str, Any]:
    """SQNR by variant, method and output."""
    bundle = folder / "bundle"
    export_model(model, bundle, validate=False)
    expected = outputs(bundle, model, "fp32")
    found: dict[str, Any] = {}
    for variant, target in (("int8", None), ("int8-cpu", "cpu")):
        for method in get_args(Method):
            convert_bundle(bundle, calibration=model, target=target, method=method, force=True)
            figures = {name: compare(array, expected[name]) for name, array in outputs(bundle, model, variant).items()}
            graph = Bundle.open(bundle).variant(variant).recipe.model_dump()["graphs"]["full"]
            found.setdefault(variant, {})[method] = {
                "sqnr_db": {name: figure.sqnr_db for name, figure in figures.items()},
                "left": graph["left"],
            }
            log.info("%s %s %s: %s", model, variant, method, found[variant][method]["sqnr_db"])
    return found


def main() -> None:
    """Measure the models that were asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(DATA_SETS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel("INFO")
    for model in options.models or DATA_SETS:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(model, Path(folder))
        document = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {"models": {}}
        document["environment"] = describe_environment()
        document["models"][model] = found
        options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
