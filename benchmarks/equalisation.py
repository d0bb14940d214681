"""What `convert --equalise` gains on the shipped models: INT8 with it and without, by the default method.

Models are calibrated and compared as in calibration_methods.py, in onnxruntime. Writes results/equalisation.json: SQNR
in dB of each output.

    python benchmarks/equalisation.py [MODEL ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from calibration_methods import outputs

from perceiver_deploy import convert_bundle, export_model
from perceiver_deploy.data.datasets import DATA_SETS
from perceiver_deploy.evaluate.parity.verdicts import compare
from perceiver_deploy.machine import describe_environment

RESULTS = Path(__file__).parent / "results" / "equalisation.json"


def measure(model: str, folder: Path) -> dict[str, dict[str, float]]:
    """SQNR of each output without equalisation and with it."""
    bundle = folder / "bundle"
    export_model(model, bundle, validate=False)
    expected = outputs(bundle, model, "fp32")
    found = {}
    for name, equalised in (("plain", False), ("equalised", True)):
        convert_bundle(bundle, calibration=model, equalised=equalised, force=True)
        arrays = outputs(bundle, model, "int8")
        found[name] = {output: compare(array, expected[output]).sqnr_db for output, array in arrays.items()}
    print(model, found, flush=True)
    return found


def main() -> None:
    """Measure the models that were asked for, all by default."""
    document = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"models": {}}
    for model in sys.argv[1:] or DATA_SETS:
        with tempfile.TemporaryDirectory() as folder:
            document["models"][model] = measure(model, Path(folder))
        document["environment"] = describe_environment()
        RESULTS.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
