"""Make tests/data/krasserm: small random models of the real perceiver-io 0.11.0, with inputs and float64 outputs.

    python tests/data/make_krasserm.py     with perceiver-io 0.11.0, fairscale, einops and safetensors installed

The package asks for Python below 3.11 and pytorch-lightning, and its Hugging Face classes for transformers 4; its
backends, which hold the models, need neither (pip install --no-deps --ignore-requires-python). So the packages
around the backends are not imported, and the Hugging Face form (`backend_model.`, `model_config`, `model_type`) and
the Lightning form (`model.`, `hyper_parameters` with instances of the backends' dataclasses) are written here as their
huggingface.py and lightning.py do. Of a file by pytorch-lightning, what only training needs is left out.
"""

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import perceiver.model.core
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent / "krasserm"


def backend(name):
    """`perceiver.model.NAME.backend` without the package around it."""
    package = ModuleType(f"perceiver.model.{name}")
    package.__path__ = [str(Path(perceiver.model.core.__file__).parents[1] / name.replace(".", "/"))]
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.backend")


mlm, text = backend("text.mlm"), backend("text.classifier")
image, flow = backend("vision.image_classifier"), backend("vision.optical_flow")
LATENTS = {"num_latents": 5, "num_latent_channels": 8}


def masked_lm(**decoder_options):
    encoder = mlm.TextEncoderConfig(
        vocab_size=262,
        max_seq_len=12,
        num_input_channels=6,
        num_cross_attention_heads=2,
        num_cross_attention_layers=3,
        num_cross_attention_qk_channels=4,
        num_self_attention_heads=4,
        num_self_attention_layers_per_block=2,
        num_self_attention_blocks=3,
        first_self_attention_block_shared=False,
        self_attention_widening_factor=2,
    )
    options = {"num_cross_attention_heads": 3, "cross_attention_residual": False, **decoder_options}
    decoder = mlm.TextDecoderConfig(vocab_size=262, max_seq_len=12, **options)
    return mlm.MaskedLanguageModel, mlm.MaskedLanguageModelConfig(encoder, decoder, **LATENTS)


def untied_masked_lm():
    return masked_lm(num_output_query_channels=9, cross_attention_residual=True)


def text_classifier():
    encoder = text.TextEncoderConfig(
        vocab_size=50,
        max_seq_len=16,
        num_input_channels=6,
        num_cross_attention_heads=2,
        num_cross_attention_layers=2,
        first_cross_attention_layer_shared=True,
        num_self_attention_heads=2,
        num_self_attention_layers_per_block=1,
        num_self_attention_blocks=2,
        num_self_attention_qk_channels=4,
        num_self_attention_v_channels=6,
    )
    decoder = text.ClassificationDecoderConfig(
        num_classes=3, num_output_query_channels=10, num_cross_attention_heads=1, cross_attention_widening_factor=2
    )
    return text.TextClassifier, text.TextClassifierConfig(encoder, decoder, **LATENTS)


def image_classifier(height=6, width=5):
    encoder = image.ImageEncoderConfig(
        image_shape=(height, width, 1),
        num_frequency_bands=3,
        num_cross_attention_heads=1,
        num_self_attention_heads=2,
        num_self_attention_layers_per_block=1,
        num_self_attention_blocks=2,
    )
    decoder = image.ClassificationDecoderConfig(
        num_classes=4, num_output_query_channels=6, num_cross_attention_heads=1, num_cross_attention_v_channels=7
    )
    return image.ImageClassifier, image.ImageClassifierConfig(encoder, decoder, **LATENTS)


def optical_flow(height=5, width=4):
    encoder = flow.OpticalFlowEncoderConfig(
        image_shape=(height, width),
        num_patch_hidden_channels=6,
        num_frequency_bands=2,
        num_cross_attention_heads=1,
        num_self_attention_heads=2,
        num_self_attention_layers_per_block=2,
    )
    decoder = flow.OpticalFlowDecoderConfig(
        image_shape=(height, width),
        num_cross_attention_qk_channels=12,
        num_cross_attention_v_channels=12,
        num_cross_attention_heads=1,
        cross_attention_residual=False,
    )
    return flow.OpticalFlow, flow.OpticalFlowConfig(encoder, decoder, **LATENTS)


def make_inputs(name, size):
    """Ids with a padding mask (one row all padding, one padded at every second token), pixels or patches."""
    if name == "image_classifier":
        return {"x": torch.randn(2, *size, 1)}
    if name == "optical_flow":
        return {"x": torch.randn(2, 2, 27, *size)}
    pad_mask = torch.zeros(size, dtype=torch.bool)
    pad_mask[0] = True
    pad_mask[1, 1::2] = True
    is_masked_lm = name.endswith("masked_lm")
    vocabulary = 262 if is_masked_lm else 50
    ids = "x_masked" if is_masked_lm else "x"
    return {ids: torch.randint(vocabulary, size), "pad_mask": pad_mask}


LIGHTNING = ("untied_masked_lm", "text_classifier", "image_classifier")  # optical flow has no Lightning module
# case: (model_type, configuration, two sizes); an image or flow model has one size, so the second is another model
CASES = {
    "masked_lm": ("perceiver-io-masked-language-model", masked_lm, ((3, 12), (3, 7))),
    "untied_masked_lm": ("perceiver-io-masked-language-model", untied_masked_lm, ((3, 12), (3, 7))),
    "text_classifier": ("perceiver-io-text-classifier", text_classifier, ((3, 16), (3, 5))),
    "image_classifier": ("perceiver-io-image-classifier", image_classifier, ((6, 5), (7, 3))),
    "optical_flow": ("perceiver-io-optical-flow", optical_flow, ((5, 4), (3, 6))),
}


@torch.no_grad()
def make(name, model_type, configuration, sizes):
    directory = HERE / name
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(sum(name.encode()))
    has_size = name in ("image_classifier", "optical_flow")
    model_class, config = configuration(*(sizes[0] if has_size else ()))
    model = model_class(config).eval()
    for parameter in model.parameters():  # norms and biases too, so that a lost one shows
        parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5))
    state = model.state_dict()
    save_file({f"backend_model.{key}": tensor for key, tensor in state.items()}, directory / "model.safetensors")
    document = {"model_type": model_type, "is_decoder": False, "model_config": asdict(config)}
    (directory / "config.json").write_text(json.dumps(document, indent=2) + "\n")
    if name in LIGHTNING:
        content = {
            "state_dict": {f"model.{key}": tensor for key, tensor in state.items()},
            "hyper_parameters": {"encoder": config.encoder, "decoder": config.decoder, **LATENTS, "params": None},
        }
        torch.save(content, directory / "lightning.ckpt")
    arrays = {}
    for index, size in enumerate(sizes):
        if has_size:
            model = model_class(configuration(*size)[1]).eval()
            state = {key: tensor for key, tensor in state.items() if "position_encoding" not in key}
            model.load_state_dict(state, strict=False)
        inputs = make_inputs(name, size)
        arrays |= {f"{key.removesuffix('_masked')}_{index}": tensor.numpy() for key, tensor in inputs.items()}
        inputs = {key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in inputs.items()}
        arrays[f"output_{index}"] = model.double()(**inputs).numpy()
    np.savez(directory / "expected.npz", **arrays)


if __name__ == "__main__":
    for name, case in CASES.items():
        make(name, *case)
