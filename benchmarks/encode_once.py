"""What does encoding once save when a whole clip is reconstructed, at the published size of multimodal autoencoding?

Hugging Face's recipe runs the whole model for each of 128 chunks of points. Ours encodes the clip of 16 x 224 x 224
pixels with its sound once and decodes all points from the latents, in each runtime, in fp32 and INT8. Operations are
counted by torch on both eager models (the graphs that run have no more of them); a few of Hugging Face's chunks are
run, spread over the clip, and compared with ours; its time for all is their median times 128. Weights are random,
perturbed so that outputs depend on all of them; INT8 is calibrated on two clips of two frames. Writes
results/encode_once.json. Takes about 10 minutes and 6 GB on one core.

    python benchmarks/encode_once.py [RUNTIME ...]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from full_size_parity import make_inputs
from peers.huggingface import random_model, reference_outputs
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from perceiver_deploy import convert_bundle, export_model, load, reconstruct_clip
from perceiver_deploy.evaluate.parity.verdicts import compare
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.model.checkpoints.load import load_checkpoint
from perceiver_deploy.model.stages import stage_module

RESULTS = Path(__file__).parent / "results" / "encode_once.json"
NAME = "PerceiverForMultimodalAutoencoding"
CLIP = {"image_points": 16 * 224 * 224, "audio_points": 1920}
CHUNKS = 128
RUN_CHUNKS = (0, 40, 83, 127)


def main() -> None:
    """Count, run and compare."""
    reference = random_model(NAME)
    clip = {name: make_inputs(NAME)[name] for name in ("image", "audio", "label")}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, path = Path(folder) / "checkpoint", Path(folder) / "bundle"
        reference.save_pretrained(checkpoint)
        document: dict[str, Any] = {"flops": count(reference, load_checkpoint(checkpoint), clip)}
        export_model(checkpoint, path, split="only", validate=False, weights=False)
        np.savez(Path(folder) / "clips.npz", **short_clips())  # type: ignore[arg-type]
        convert_bundle(path, precision="int8", calibration=str(Path(folder) / "clips.npz"))
        theirs, seconds = zip(*(run_reference(reference, clip, chunk) for chunk in RUN_CHUNKS), strict=True)
        median = statistics.median(seconds)
        document["hugging_face"] = {"chunks_run": RUN_CHUNKS, "seconds_a_chunk": seconds, "seconds": median * CHUNKS}
        for runtime in sys.argv[1:] or ("onnxruntime", "openvino"):
            for variant in ("fp32", "int8"):
                document[f"{runtime} {variant}"] = run_ours(path, runtime, variant, clip, theirs, median * CHUNKS)
    document["environment"] = {**describe_environment(), "threads": torch.get_num_threads()}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1))


def short_clips() -> dict[str, np.ndarray]:
    """Two clips to calibrate on, with some of their points, of the kind that is reconstructed."""
    whole = {name: make_inputs(NAME)[name].numpy() for name in ("image", "audio", "label")}
    clips = {
        "image": np.concatenate([whole["image"][:, at : at + 2] for at in (0, 8)]),
        "audio": np.concatenate([whole["audio"][:, at : at + 3840] for at in (0, 15360)]),
        "label": np.repeat(whole["label"], 2, axis=0),
    }
    return {**clips, "image_points": np.arange(0, 2 * 224 * 224, 500), "audio_points": np.arange(240)}


def points_of(chunk: int) -> dict[str, torch.Tensor]:
    """The points of one of Hugging Face's chunks."""
    return {name: torch.arange(size // CHUNKS) + chunk * (size // CHUNKS) for name, size in CLIP.items()}


def count(reference: nn.Module, ours: nn.Module, clip: dict[str, torch.Tensor]) -> dict[str, float]:
    """Operations, two for each multiply-add; ours, which are many, on tensors without content."""
    with FlopCounterMode(display=False) as chunk:
        run_reference(reference.requires_grad_(False), clip, 0)
    ours = ours.to("meta").requires_grad_(False)
    empty = {name: tensor.to("meta") for name, tensor in clip.items()}
    everything = {name: torch.arange(size, device="meta") for name, size in CLIP.items()}
    with FlopCounterMode(display=False) as encoder:
        latents = stage_module(ours, "encoder")(**empty)
    with FlopCounterMode(display=False) as decoder:
        size = torch.empty(4, dtype=torch.int64, device="meta")
        stage_module(ours, "decoder")(**latents, **everything, clip_size=size)
    theirs, encoded, decoded = (counter.get_total_flops() for counter in (chunk, encoder, decoder))
    return {
        "hugging_face_chunk": theirs,
        "hugging_face": theirs * CHUNKS,
        "encoder": encoded,
        "decoder": decoded,
        "ratio": (encoded + decoded) / (theirs * CHUNKS),
    }


def run_reference(model: nn.Module, clip: dict[str, torch.Tensor], chunk: int) -> tuple[dict[str, torch.Tensor], float]:
    """Outputs of one chunk, and how long it took."""
    with torch.inference_mode():
        started = time.perf_counter()
        outputs = reference_outputs(NAME, model, {**clip, **points_of(chunk)})
        return outputs, time.perf_counter() - started


def run_ours(
    path: Path,
    runtime: str,
    variant: str,
    clip: dict[str, torch.Tensor],
    theirs: tuple[dict[str, torch.Tensor], ...],
    seconds: float,
) -> dict[str, Any]:
    """Reconstruct the whole clip and compare it with Hugging Face's chunks."""
    arrays = {name: tensor.numpy() for name, tensor in clip.items()}
    with load(path, runtime=runtime, variant=variant, threads=torch.get_num_threads()) as session:
        started = time.perf_counter()
        session.encode(arrays)
        encoding = time.perf_counter() - started
        started = time.perf_counter()
        whole = reconstruct_clip(session, arrays)
        took = time.perf_counter() - started
    pixels = np.moveaxis(whole["image"], 2, -1).reshape(1, -1, 3)
    samples = whole["audio"].reshape(1, 1920, 16)
    errors: dict[str, float] = {}
    for chunk, expected in zip(RUN_CHUNKS, theirs, strict=True):
        points = {name: index.numpy() for name, index in points_of(chunk).items()}
        found = {
            "image_reconstruction": pixels[:, points["image_points"]],
            "audio_reconstruction": samples[:, points["audio_points"]].reshape(1, -1),
            "label_logits": whole["label_logits"],
        }
        for name, array in found.items():
            error = compare(array, expected[name].numpy()).relative_l2
            errors[name] = max(error, errors.get(name, 0.0))
    return {"seconds": took, "encoding_seconds": encoding, "speed_up": seconds / took, "relative_l2": errors}


if __name__ == "__main__":
    main()
