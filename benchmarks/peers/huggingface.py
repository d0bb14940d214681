"""Transformers' own Perceivers: published configurations, random weights that show in the output, outputs by our names.

Needs torch and transformers and nothing of perceiver-deploy that would add to the memory of a process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.perceiver import modeling_perceiver

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import PerceiverDeployError

IMAGES = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 1,
    "num_labels": 1000,
}
TEXT = {"qk_channels": 8 * 32, "v_channels": 1280}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "PerceiverForMaskedLM": TEXT,
    "PerceiverForSequenceClassification": TEXT,
    "PerceiverForImageClassificationFourier": {**IMAGES, "d_model": 261},
    "PerceiverForImageClassificationLearned": {**IMAGES, "d_model": 512, "image_size": 224},
    "PerceiverForImageClassificationConvProcessing": {**IMAGES, "d_model": 322},
    "PerceiverForOpticalFlow": {
        "num_latents": 2048,
        "d_latents": 512,
        "num_blocks": 1,
        "num_self_attends_per_block": 24,
        "num_self_attention_heads": 16,
        "num_cross_attention_heads": 1,
        "d_model": 322,
    },
    "PerceiverForMultimodalAutoencoding": {
        "num_latents": 784,
        "d_latents": 512,
        "num_blocks": 1,
        "num_self_attends_per_block": 8,
        "num_self_attention_heads": 8,
        "num_cross_attention_heads": 1,
        "d_model": 704,
        "num_labels": 700,
    },
}


def random_model(name: str, **changes: Any) -> torch.nn.Module:
    """A perturbed model of the published configuration; `changes` replace entries of it."""
    torch.manual_seed(0)
    configuration = transformers.PerceiverConfig(**{**CONFIGURATIONS[name], **changes})
    model = getattr(modeling_perceiver, name)(configuration).eval()
    perturb(model)
    return model


def perturb(model: torch.nn.Module) -> None:
    """Add noise to every weight: Hugging Face's initialisation leaves the output all but independent of the input."""
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.add_(torch.randn_like(parameter) * scale)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand_like(buffer) + 0.5)


def load(name: str, checkpoint: Path) -> torch.nn.Module:
    """The model that was saved, in eval mode."""
    return getattr(modeling_perceiver, name).from_pretrained(checkpoint).eval()


def reference_outputs(name: str, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Hugging Face's outputs under our names."""
    if name == "PerceiverForOpticalFlow":
        return {"flow": model(inputs=inputs["patches"]).logits}
    if name == "PerceiverForMultimodalAutoencoding":
        points = {"image": inputs["image_points"], "audio": inputs["audio_points"], "label": None}
        modalities = {key: inputs[key] for key in ("image", "audio", "label")}
        logits = model(inputs=modalities, subsampled_output_points=points).logits
        return {
            "image_reconstruction": logits["image"],
            "audio_reconstruction": logits["audio"],
            "label_logits": logits["label"],
        }
    return {"logits": model(**inputs).logits}


class TupleModel(torch.nn.Module):
    """Tensors in, in the order of `names`, tensors out: what an ONNX exporter takes."""

    def __init__(self, name: str, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self._name, self._names = name, names

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs in the order of `reference_outputs`."""
        return tuple(reference_outputs(self._name, self.model, dict(zip(self._names, tensors, strict=True))).values())


class HuggingFaceSession:
    """The model in eager float32: the one that others are timed against and compared with."""

    def __init__(self, name: str, checkpoint: Path, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._name, self._model = name, load(name, checkpoint)

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name.

        Raises:
            PerceiverDeployError: transformers' model does not run on these inputs.
        """
        if self._name == "PerceiverForOpticalFlow":
            # The published model is made for one size, which only shapes its result: nothing else depends on it.
            self._model.perceiver.decoder.output_image_shape = inputs["patches"].shape[-2:]
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        try:
            with torch.inference_mode():
                outputs = reference_outputs(self._name, self._model, tensors)
        except (RuntimeError, ValueError, IndexError) as error:
            raise PerceiverDeployError(f"{self._name} of transformers failed: {error}") from error
        return {name: np.asarray(output.numpy()) for name, output in outputs.items()}

    def close(self) -> None:
        """Drop the model."""
        del self._model
