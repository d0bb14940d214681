"""Make tests/data/lucidrains: small random models of the real perceiver-pytorch, with inputs and float64 outputs.

    python tests/data/make_lucidrains.py     with perceiver-pytorch 0.8.8, then with 0.11.0, and safetensors installed

Each version makes the cases that carry its number. The positions are those of the model in float32, in which it is
used; all that follows is computed in float64 from the float32 weights that are saved.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from perceiver_pytorch import Perceiver, PerceiverIO, PerceiverLM
from safetensors.torch import save_file

HERE = Path(__file__).parent / "lucidrains"
SMALL = {"num_latents": 5, "latent_dim": 8, "cross_dim_head": 3, "latent_dim_head": 2}
CLASSIFIER = {**SMALL, "num_classes": 4}
# case: (version, arguments, shapes of two inputs without the axis of the batch, whether there is a mask)
PERCEIVERS = {
    "image": (
        "0.11.0",
        {"num_freq_bands": 3, "depth": 2, "max_freq": 10.0, "cross_heads": 2, "latent_heads": 3}
        | {"self_per_cross_attn": 2, "input_size": [6, 7]},
        ((6, 7, 3), (9, 4, 3)),
        False,
    ),
    "image_tied_old": (
        "0.8.8",
        {"num_freq_bands": 2, "depth": 3, "max_freq": 7, "input_channels": 1, "weight_tie_layers": True},
        ((5, 5, 1), (3, 8, 1)),
        False,
    ),
    "image_tied": (
        "0.11.0",
        {"num_freq_bands": 2, "depth": 4, "max_freq": 7.5, "weight_tie_layers": True, "latent_heads": 1},
        ((5, 5, 3), (3, 8, 3)),
        False,
    ),
    "audio": (
        "0.11.0",
        {"num_freq_bands": 4, "depth": 2, "max_freq": 20.0, "input_axis": 1, "input_channels": 6, "latent_heads": 2},
        ((11, 6), (7, 6)),
        True,
    ),
    "video_old": (
        "0.8.8",
        {"num_freq_bands": 2, "depth": 2, "max_freq": 5.0, "input_axis": 3, "latent_heads": 2, "cross_heads": 3},
        ((2, 4, 3, 3), (3, 2, 5, 3)),
        False,
    ),
}
# case: (version, arguments, two sizes: how many tokens, and how many queries unless the tokens are the queries)
PERCEIVER_IOS = {
    "io": (
        "0.11.0",
        {"depth": 2, "dim": 6, "queries_dim": 7, "logits_dim": 4, "decoder_ff": True, "cross_heads": 2}
        | {"latent_heads": 3},
        ((9, 4), (5, 11)),
    ),
    "io_tied_old": (
        "0.8.8",
        {"depth": 3, "dim": 6, "queries_dim": 7, "weight_tie_layers": True, "latent_heads": 1},
        ((9, 4), (5, 11)),
    ),
    "lm_tied": (
        "0.11.0",
        {"depth": 3, "dim": 6, "num_tokens": 20, "max_seq_len": 12, "weight_tie_layers": True, "cross_heads": 3},
        ((12,), (7,)),
    ),
    "lm_old": (
        "0.8.8",
        {"depth": 2, "dim": 6, "num_tokens": 20, "max_seq_len": 12, "decoder_ff": True, "seq_dropout_prob": 0.2},
        ((12,), (7,)),
    ),
}


def build(name, model_class, arguments):
    """A random model, saved in the directory of its case with its arguments."""
    directory = HERE / name
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(sum(name.encode()))
    model = model_class(**{key: value for key, value in arguments.items() if key != "input_size"}).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too, so that a lost one shows
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5))
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}  # tied tensors appear more than once
    save_file(state, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(arguments, indent=2) + "\n")
    return model


def make_mask(tokens):
    """Three rows: all masked, every second token masked, none masked."""
    mask = torch.ones(3, tokens, dtype=torch.bool)
    mask[0] = False
    mask[1, 1::2] = False
    return mask


def make_perceiver(name, arguments, shapes, masked):
    model = build(name, Perceiver, {**CLASSIFIER, **arguments})
    arrays = {}
    for index, shape in enumerate(shapes):
        data = torch.randn(3, *shape)
        mask = None
        if masked:
            mask = make_mask(shape[0])
            arrays[f"mask_{index}"] = mask.numpy()
        arrays |= {f"input_{index}": data.numpy(), f"output_{index}": outputs(model, data, mask).numpy()}
    np.savez(HERE / name / "expected.npz", **arrays)


@torch.no_grad()
def make_perceiver_io(name, arguments, sizes):
    arguments = {**SMALL, **arguments}
    model = build(name, PerceiverLM if "num_tokens" in arguments else PerceiverIO, arguments).double()
    arrays = {}
    for index, (tokens, *queries) in enumerate(sizes):
        mask = make_mask(tokens)
        if queries:
            data = torch.randn(3, tokens, arguments["dim"], dtype=torch.float64)
            asked = torch.randn(3, *queries, arguments["queries_dim"], dtype=torch.float64)
            arrays[f"queries_{index}"] = asked.numpy()
            output = model(data, mask=mask, queries=asked)
        else:
            data = torch.randint(arguments["num_tokens"], (3, tokens))
            output = model(data, mask=mask)
        arrays |= {f"input_{index}": data.numpy(), f"mask_{index}": mask.numpy(), f"output_{index}": output.numpy()}
    np.savez(HERE / name / "expected.npz", **arrays)


@torch.no_grad()
def outputs(model, data, mask):
    """Run in float32 to see the tokens with their positions, then again from those in float64."""
    seen = {}
    first = model.layers[0].cross_attn if hasattr(model.layers[0], "cross_attn") else model.layers[0][0]
    hook = first.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    single = model.float()(data, mask=mask)
    hook.remove()
    axes = model.input_axis
    model.double()
    model.fourier_encode_data, model.input_axis = False, 1
    result = model(seen["context"].double(), mask=mask)
    model.fourier_encode_data, model.input_axis = True, axes
    model.float()
    torch.testing.assert_close(single.double(), result, atol=1e-4, rtol=1e-4)
    return result


if __name__ == "__main__":
    for make, cases in ((make_perceiver, PERCEIVERS), (make_perceiver_io, PERCEIVER_IOS)):
        for name, (needed, *case) in cases.items():
            if version("perceiver-pytorch") == needed:
                make(name, *case)
