"""What does TensorRT-RTX make of every model and precision: does it build, how long does it take, how large is it?

Every shipped checkpoint, and models of the published full sizes with weights of no meaning, in fp32, fp16 and int8
(Q/DQ), as one engine for compute capabilities 8.6, 8.9 and 12.0 with the default profile: every axis is dynamic. No GPU
is needed, and nothing is run. Writes results/engines.json after each engine; rows that it has are not made again.

    python benchmarks/engines.py [MODEL ...] [--again]

Models: names of shipped checkpoints, full-fourier, full-conv, full-language, full-flow, full-learned, full-multimodal
(the default: all).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.huggingface import CONFIGURATIONS

from perceiver_deploy import build_engine, convert_bundle, export_model
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Precision
from perceiver_deploy.errors import PerceiverDeployError
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.model.checkpoints.huggingface.config import convert_config
from perceiver_deploy.model.checkpoints.load import shipped_names
from perceiver_deploy.model.tasks.catalogue import build_model

RESULTS = Path(__file__).parent / "results" / "engines.json"
CAPABILITIES = ["8.6", "8.9", "12.0"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
FULL_SIZE = {
    "full-fourier": "PerceiverForImageClassificationFourier",
    "full-conv": "PerceiverForImageClassificationConvProcessing",
    "full-language": "PerceiverForMaskedLM",
    "full-flow": "PerceiverForOpticalFlow",
    "full-learned": "PerceiverForImageClassificationLearned",
    "full-multimodal": "PerceiverForMultimodalAutoencoding",
}
CALIBRATION_SAMPLES = 2
CALIBRATION_SIZE = 64
"""Few and small: the ranges of a model without meaning decide nothing here."""


def main() -> None:
    """Build what is asked for and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=[*shipped_names(), *FULL_SIZE])
    parser.add_argument("--again", action="store_true", help="build rows that are there already")
    options = parser.parse_args()
    document = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"models": {}}
    for model in options.models:
        rows = document["models"].setdefault(model, {})
        if options.again:
            rows.clear()
        missing = [precision for precision in PRECISIONS if precision not in rows]
        with tempfile.TemporaryDirectory() as folder:
            bundle = export(model, Path(folder)) if missing else Path()
            for precision in missing:
                rows[precision] = measure(model, precision, bundle)
                document["environment"] = describe_environment()
                RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
                print(model, precision, json.dumps(rows[precision]), flush=True)


def export(model: str, folder: Path) -> Path:
    """A bundle of a shipped checkpoint, or of a full-size model, with `calibration.npz` beside it."""
    bundle = folder / "bundle"
    if model not in FULL_SIZE:
        export_model(model, bundle, validate=False)
        return bundle
    name = FULL_SIZE[model]
    torch.manual_seed(0)
    config = convert_config({**CONFIGURATIONS[name], "architectures": [name]}, Path())
    full = build_model(config)
    export_model(full, bundle, validate=False, weights=False)
    sizes = {
        name: axis.multiple_of
        * max(1, axis.min // axis.multiple_of, min(axis.opt, CALIBRATION_SIZE) // axis.multiple_of)
        for name, axis in full.signature.axes.items()
    }
    sizes["batch"] = CALIBRATION_SAMPLES
    inputs = make_inputs(full.signature, Case("calibration", sizes), config.preprocessing)
    np.savez(folder / "calibration.npz", **inputs)  # type: ignore[arg-type]
    return bundle


def measure(model: str, precision: Precision, bundle: Path) -> dict[str, Any]:
    """Build one engine: what the side-car says of it, or why there is none."""
    try:
        if precision != "fp32":
            calibration = str(bundle.parent / "calibration.npz") if model in FULL_SIZE else model
            convert_bundle(bundle, precision=precision, calibration=calibration)
        result = build_engine(bundle, variant=precision, compute_capabilities=CAPABILITIES)
    except PerceiverDeployError as error:
        return {"refused": str(error)}
    facts, manifest = result.facts, Bundle.open(bundle).manifest
    return {
        "onnx_bytes": manifest.stored_bytes(facts["onnx"]["file"]),
        "engine_bytes": result.engine_bytes,
        "build_seconds": facts["seconds"],
        "layers": facts["layers"],
        "gemm_dtypes": facts["gemm_dtypes"],
        "activation_bytes": facts["activation_bytes"],
        "warnings": facts["warnings"],
        "fusible_attentions": sum(each["count"] for each in facts["attentions"] if each["fusible"]),
        "attentions": sum(each["count"] for each in facts["attentions"]),
        "tensorrt_version": facts["tensorrt_version"],
        "compute_capabilities": facts["compute_capabilities"],
        "axes": facts["axes"],
    }


if __name__ == "__main__":
    main()
