"""Do our models give Hugging Face's numbers at the published sizes, and do the exported graphs give ours?

For each of the seven classes: a randomly initialised Hugging Face model of the published configuration (its weights
perturbed, so that outputs depend on all of them), saved, loaded by us, compared in float64 and float32; then exported
with the parity gate. Writes results/full_size_parity.json. Takes about 25 minutes and 16 GB on two cores.

    python benchmarks/full_size_parity.py [CLASS ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peers.huggingface import CONFIGURATIONS, random_model, reference_outputs

from perceiver_deploy import export_model
from perceiver_deploy.evaluate.parity.verdicts import compare
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.model.checkpoints.load import load_checkpoint

RESULTS = Path(__file__).parent / "results" / "full_size_parity.json"


def main() -> None:
    """Run the named classes (default: all) and write the results, keeping those of classes that were not run."""
    document = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"classes": {}}
    for name in sys.argv[1:] or CONFIGURATIONS:
        document["classes"][name] = measure(name)
        document["environment"] = describe_environment()
        RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(document["classes"][name]), flush=True)


def measure(name: str) -> dict[str, Any]:
    """Parity and export figures of one class."""
    reference = random_model(name)
    inputs = make_inputs(name)
    figures: dict[str, Any] = {"parameters": sum(p.numel() for p in reference.parameters())}
    figures["inputs"] = {key: list(value.shape) for key, value in inputs.items()}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        reference.save_pretrained(checkpoint)
        ours = load_checkpoint(checkpoint)
        for dtype in (torch.float64, torch.float32):
            cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
            with torch.inference_mode():
                expected = reference_outputs(name, reference.to(dtype), cast)
                found = ours.to(dtype)(**cast)
            errors = [compare(found[key].numpy(), expected[key].numpy()).relative_l2 for key in found]
            figures[str(dtype).removeprefix("torch.")] = max(errors)
        del reference, ours
        started = time.perf_counter()
        result = export_model(checkpoint, Path(folder) / "bundle")
        figures["export_and_gate_seconds"] = time.perf_counter() - started
        figures["onnx_bytes"] = result.graphs["full"].bytes
        figures["gate"] = [
            {"case": v.case, "inputs": v.sizes, "relative_l2": v.figures.relative_l2, "bound": v.bound}
            for v in result.verdicts
        ]
        figures["capped"] = result.capped
    return figures


def make_inputs(name: str) -> dict[str, torch.Tensor]:
    """One input at the published size.

    For text three rows (full, half masked, fully masked); for autoencoding one of the 128 chunks of points.
    """
    if name.startswith("PerceiverForImage"):
        return {"pixel_values": torch.randn(1, 3, 224, 224)}
    if name == "PerceiverForOpticalFlow":
        return {"patches": torch.randn(1, 2, 27, 368, 496)}
    if name == "PerceiverForMultimodalAutoencoding":
        return {
            "image": torch.rand(1, 16, 3, 224, 224),
            "audio": torch.rand(1, 16 * 1920, 1) * 2 - 1,
            "label": torch.zeros(1, 700),
            "image_points": torch.randperm(16 * 224 * 224)[: 16 * 224 * 224 // 128],
            "audio_points": torch.randperm(1920)[:15],
        }
    mask = torch.ones(3, 2048, dtype=torch.int64)
    mask[1, 1024:] = 0
    mask[2] = 0
    return {"input_ids": torch.randint(0, 262, (3, 2048)), "attention_mask": mask}


if __name__ == "__main__":
    main()
