"""What it costs that no INT8 sum can saturate: SQNR of outputs by how the scales of weights are chosen.

Each shipped model is calibrated on 256 training samples and compared with fp32 on up to 256 rows of the test set, as in
calibration_methods.py, with symmetric and with unsigned activations (`--for cpu`). Graphs are computed exactly as they
say, so that no processor has a part in it. Bundles that are given, such as those of full-size models that processors.py
makes, are compared on the golden sample of the usual sizes, by the ranges of their variants `int8` and `int8-cpu`.

- all levels: each channel uses all 127 levels for its largest weight; sums can saturate without INT8 dot products
- seven bits: weights are halved, as other packages offer; sums cannot saturate
- even pairs: neighbours (2j, 2j+1) of one sign sum to at most 128, enough for onnxruntime
- safe: any two neighbours do, enough for OpenVINO too; the default of `convert`
- weights alone: INT8 weights with all levels, activations float32 (`int8-weights`)

Writes results/saturation.json: SQNR in dB of each output, and how many weights could saturate.

    python benchmarks/saturation.py [MODEL|BUNDLE ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from calibration_methods import BATCH, ROWS
from numpy.typing import NDArray

from perceiver_deploy import convert_bundle, export_model
from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.samples import load_sample
from perceiver_deploy.data.datasets import DATA_SETS, load_dataset
from perceiver_deploy.evaluate.parity.verdicts import compare
from perceiver_deploy.export.calibration.ranges import read_ranges
from perceiver_deploy.export.graph.files import external_above, write_graph
from perceiver_deploy.export.int8.quantize import quantize_model
from perceiver_deploy.export.int8.saturation import (
    MOST_NEIGHBOURS,
    WeightScales,
    find_saturation,
    full_scales,
    round_weight,
    safe_scales,
)
from perceiver_deploy.export.int8.weights_only import quantize_weights
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.pipeline.convert.exact_outputs import exact_session
from perceiver_deploy.runtimes.conformance import USUAL_SAMPLE

RESULTS = Path(__file__).parent / "results" / "saturation.json"
Weight = NDArray[np.float32]


def seven_bits(weight: Weight) -> Weight:
    """Scales that use half of the levels."""
    return full_scales(weight) * np.float32(127 / 63)


def even_pairs(weight: Weight) -> Weight:
    """Scales with which neighbours (2j, 2j+1) of one sign sum to at most 128."""
    count = len(weight) // 2 * 2
    parts = [np.maximum(sign * weight[:count], 0) for sign in (1, -1)]
    sums = np.concatenate([part[::2] + part[1::2] for part in parts])
    scales = np.maximum(full_scales(weight), (sums.max(0, initial=0) / MOST_NEIGHBOURS).astype(np.float32))
    for _ in range(64):
        levels = round_weight(weight[:count], scales).astype(np.int16)
        found = np.concatenate([np.maximum(s * levels[::2], 0) + np.maximum(s * levels[1::2], 0) for s in (1, -1)])
        beyond = found.max(0, initial=0) > MOST_NEIGHBOURS
        if not beyond.any():
            break
        scales[beyond] *= np.float32(1 + 2**-10)
    return scales


SCHEMES: dict[str, WeightScales] = {
    "all levels": full_scales,
    "seven bits": seven_bits,
    "even pairs": even_pairs,
    "safe": safe_scales,
}
WEIGHTS_ALONE = "weights alone"


def measure(bundle: Bundle, batches: Callable[[], Iterator[Arrays]], folder: Path) -> dict[str, Any]:
    """SQNR by variant and scheme."""
    manifest, source = bundle.manifest, bundle.path / bundle.variant("fp32").files["full"]
    target = folder / "graph.onnx"

    def outputs(file: Path) -> Arrays:
        with exact_session({"full": file}, manifest.stages, manifest.axes) as session:
            found = [session.run(batch) for batch in batches()]
        return {name: np.concatenate([one[name].reshape(-1) for one in found]) for name in found[0]}

    def compared(file: Path) -> dict[str, float]:
        return {name: compare(array, expected[name]).sqnr_db for name, array in outputs(file).items()}

    expected = outputs(source)
    results: dict[str, Any] = {}
    for variant, unsigned in (("int8", False), ("int8-cpu", True)):
        ranges = read_ranges(bundle.path / f"calibration/{variant}.json")
        for scheme, scales in SCHEMES.items():
            quantized, _ = quantize_model(
                ir.load(source), ranges.limits(), lost=ranges.lost(), unsigned=unsigned, weight_scales=scales
            )
            write_graph(quantized, target, external_above(source))
            report = find_saturation(quantized)
            results.setdefault(variant, {})[scheme] = {
                "sqnr_db": compared(target),
                "weights_that_can_saturate": len(report.weights),
                "products_of_activations": len(report.activations),
            }
            print(bundle.path.name, variant, scheme, results[variant][scheme], flush=True)
    model = ir.load(source)
    quantize_weights(model)
    write_graph(model, target, external_above(source))
    results["int8-weights"] = {WEIGHTS_ALONE: {"sqnr_db": compared(target)}}
    print(bundle.path.name, results["int8-weights"], flush=True)
    return results


def measure_shipped(model: str, folder: Path) -> dict[str, Any]:
    """A shipped model on rows of its test set."""
    path = folder / model
    export_model(model, path, validate=False)
    convert_bundle(path, calibration=model)
    convert_bundle(path, calibration=model, target="cpu")
    test = load_dataset(model).test
    rows = np.unique(np.linspace(0, len(test) - 1, ROWS).astype(np.int64))
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    return measure(Bundle.open(path), lambda: (test.rows(batch) for batch in batches), folder)


def measure_bundle(path: Path, folder: Path) -> dict[str, Any]:
    """A bundle on the golden sample of the usual sizes: exact graphs of full size take a minute each."""
    bundle = Bundle.open(path)
    inputs = load_sample(bundle.file(USUAL_SAMPLE)).inputs
    return measure(bundle, lambda: iter([inputs]), folder)


def main() -> None:
    """Measure the models that were asked for, all shipped ones by default."""
    document = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"models": {}}
    for model in sys.argv[1:] or DATA_SETS:
        with tempfile.TemporaryDirectory() as folder:
            shipped = model in DATA_SETS
            name = model if shipped else f"{Path(model).parent.name}, full size"
            document["models"][name] = (
                measure_shipped(model, Path(folder)) if shipped else measure_bundle(Path(model), Path(folder))
            )
        document["environment"] = describe_environment()
        RESULTS.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
