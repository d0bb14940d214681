"""DeepMind's checkpoints: random parameters under Haiku's names, and an oracle of the published formulas in numpy.

The oracle is written from the papers and from deepmind-research/perceiver (channels last, dict of Haiku's names), and
shares nothing with the package. Its tolerance is that of test_huggingface.py: float64, 1e-10. Fourier features are
float32 by definition: they are compared within the rounding of their angles, and both sides go on with the same ones.
"""

import dataclasses
import math
import os
import pickle
import subprocess
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch

from perceiver_deploy import export_model, load
from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.checkpoints.haiku import reader as haiku
from perceiver_deploy.model.checkpoints.haiku.pickle_reader import read_pickle
from perceiver_deploy.model.checkpoints.haiku.reader import load_haiku
from perceiver_deploy.model.inputs.image import ConvStem, ImageInput
from perceiver_deploy.model.positions import FourierPositions, indexed_positions
from tests.helpers.factories import image_inputs, perturbed_model, relative_l2, small_config, tensors

FLOAT64 = 1e-10
SMALL = {
    "text": {"latents": 6, "width": 40, "layers": 3, "qk": 16, "channels": 24, "length": 20, "vocabulary": 31},
    "learned": {"latents": 6, "width": 32, "layers": 2, "size": 8, "table": 10, "projected": 12, "stem": 14},
    "fourier": {"latents": 6, "width": 32, "layers": 2, "bands": 6},
    "conv": {"latents": 6, "width": 32, "layers": 2, "bands": 6, "stem": 8},
    "flow": {"latents": 7, "width": 32, "layers": 3, "bands": 5, "stem": 12},
    "multimodal": {"latents": 6, "width": 32, "layers": 2, "bands": 3, "audio": 8, "label": 9, "query": 30},
}
PUBLISHED = {
    "text": {
        "latents": 256,
        "width": 1280,
        "layers": 26,
        "qk": 256,
        "channels": 768,
        "length": 2048,
        "vocabulary": 262,
    },
    "learned": {"latents": 512, "width": 1024, "layers": 6, "size": 224, "table": 256, "projected": 256, "stem": 256},
    "fourier": {"latents": 512, "width": 1024, "layers": 6, "bands": 64},
    "conv": {"latents": 512, "width": 1024, "layers": 6, "bands": 64, "stem": 64},
    "flow": {"latents": 2048, "width": 512, "layers": 24, "bands": 64, "stem": 64},
    "multimodal": {"latents": 784, "width": 512, "layers": 8, "bands": 32, "audio": 192, "label": 700, "query": 1024},
}
PARAMETERS = {  # of the Hugging Face classes, read off models of transformers 5
    "text": 201_108_230,
    "learned": 62_255_848,
    "fourier": 48_440_627,
    "conv": 48_646_522,
    "flow": 41_057_134,
    "multimodal": 19_858_855,
}
BLOCKS = {"text": 1, "learned": 8, "fourier": 8, "conv": 8, "flow": 1, "multimodal": 1}
HEADS = {"text": (8, 8, 8), "flow": (1, 16, 1)}  # encoder's cross-attention, self-attention, decoder
RESIDUAL = ("fourier", "conv")
ENCODERS = {"multimodal": "encoder"}
CLASSIFIER = "classification_decoder/~/basic_decoder"
DECODERS = {
    "text": "basic_decoder",
    "flow": "flow_decoder/~/basic_decoder",
    "multimodal": "multimodal_decoder/~/basic_decoder",
}
DOWNSAMPLE = "image_preprocessor/~/conv2_d_downsample/~"
LEARNED = "image_preprocessor/~_build_network_inputs"


def linear(name, inputs, outputs):
    return {f"{name}/w": (inputs, outputs), f"{name}/b": (outputs,)}


def attention_layer(name, query, key_value, qk, v):
    norms = ["layer_norm", "layer_norm_1"] if key_value is None else ["layer_norm", "layer_norm_1", "layer_norm_2"]
    keys = query if key_value is None else key_value
    widths = [query, query] if key_value is None else [query, key_value, query]
    shapes = {
        f"{name}/{norm}/{part}": (n,) for norm, n in zip(norms, widths, strict=True) for part in ("scale", "offset")
    }
    shapes |= linear(f"{name}/attention/linear", query, qk) | linear(f"{name}/attention/linear_1", keys, qk)
    shapes |= linear(f"{name}/attention/linear_2", keys, v) | linear(f"{name}/attention/linear_3", v, query)
    return shapes | linear(f"{name}/mlp/linear", query, query) | linear(f"{name}/mlp/linear_1", query, query)


def core(kind, sizes, channels, query, outputs, queries=None):
    encoder, decoder, width = ENCODERS.get(kind, "perceiver_encoder"), DECODERS.get(kind, CLASSIFIER), sizes["width"]
    cross, own = (sizes["qk"], width) if kind == "text" else (channels, channels), (sizes.get("qk", width), width)
    shapes = {f"{encoder}/~/trainable_position_encoding/pos_embs": (sizes["latents"], width)}
    shapes |= attention_layer(f"{encoder}/~/cross_attention", width, channels, *cross)
    for index in range(sizes["layers"]):
        shapes |= attention_layer(f"{encoder}/~/self_attention{f'_{index}' if index else ''}", width, None, *own)
    last = (sizes["qk"], query) if kind == "text" else (width, width)
    shapes |= attention_layer(f"{decoder}/cross_attention", query, width, *last)
    if queries is not None:
        shapes[f"{decoder}/~/trainable_position_encoding/pos_embs"] = (queries, query)
    return shapes if outputs is None else shapes | linear(f"{decoder}/output", query, outputs)


def shapes_of(kind, sizes):
    """Shapes by Haiku's names, those of the state included."""
    width, classes = sizes["width"], 1000 if sizes in PUBLISHED.values() else 5
    fourier = 2 * (2 * sizes.get("bands", 0) + 1)
    if kind == "text":
        channels = sizes["channels"]
        own = {"embed/embeddings": (sizes["vocabulary"], channels), "embedding_decoder/bias": (sizes["vocabulary"],)}
        own["trainable_position_encoding/pos_embs"] = (sizes["length"], channels)
        return own | core(kind, sizes, channels, channels, None, sizes["length"])
    if kind == "learned":
        own = {
            "image_preprocessor/~/conv2_d/w": (1, 1, 3, sizes["stem"]),
            "image_preprocessor/~/conv2_d/b": (sizes["stem"],),
        }
        own[f"{LEARNED}/trainable_position_encoding/pos_embs"] = (sizes["size"] ** 2, sizes["table"])
        own |= linear(f"{LEARNED}/position_encoding_projector/linear", sizes["table"], sizes["projected"])
        return own | core(kind, sizes, sizes["stem"] + sizes["projected"], width, classes, 1)
    if kind == "fourier":
        return core(kind, sizes, 3 + fourier, width, classes, 1)
    if kind == "conv":
        own = {f"{DOWNSAMPLE}/conv/w": (7, 7, 3, sizes["stem"])}
        own |= {f"{DOWNSAMPLE}/batchnorm/{part}": (1, 1, 1, sizes["stem"]) for part in ("scale", "offset")}
        for average in ("mean_ema", "var_ema"):
            own |= {f"{DOWNSAMPLE}/batchnorm/~/{average}/{p}": (1, 1, 1, sizes["stem"]) for p in ("hidden", "average")}
            own[f"{DOWNSAMPLE}/batchnorm/~/{average}/counter"] = ()
        return own | core(kind, sizes, sizes["stem"] + fourier, width, classes, 1)
    if kind == "flow":
        channels = sizes["stem"] + fourier
        return linear("image_preprocessor/patches_linear", 54, sizes["stem"]) | core(kind, sizes, channels, channels, 2)
    positions = {"audio": 2 * sizes["audio"] + 1, "image": 3 * (2 * sizes["bands"] + 1)}
    inputs = {"audio": positions["audio"] + 16, "image": positions["image"] + 48, "label": sizes["label"]}
    queries = positions | {"label": sizes["query"]}
    channels, query, outputs = max(inputs.values()) + 4, max(queries.values()) + 2, 512 if width == 512 else 20
    own = {f"{CLASSIFIER}/~/trainable_position_encoding/pos_embs": (1, sizes["query"])}
    for name in inputs:
        own[f"multimodal_preprocessor/{name}_padding/pos_embs"] = (1, channels - inputs[name])
        own[f"multimodal_preprocessor/{name}_mask_token/pos_embs"] = (1, channels)
        own[f"multimodal_decoder/~decoder_query/{name}_padding/pos_embs"] = (1, query - queries[name])
    own |= linear("audio_postprocessor/linear", outputs, 16) | linear("projection_postprocessor/linear", outputs, 3)
    own |= linear("classification_postprocessor/linear", outputs, sizes["label"])
    return own | core(kind, sizes, channels, query, outputs)


def random_parameters(kind, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes_of(kind, SMALL[kind]).items():
        scale = math.prod(shape[:-1]) ** -0.5 if name.endswith("/w") else 0.3 if len(shape) < 2 else 1
        array = rng.standard_normal(shape) * scale + name.endswith("/scale")
        array = np.abs(array) + 0.5 if name.endswith("var_ema/average") else array
        arrays[name] = np.asarray(7, np.int32) if name.endswith("counter") else array.astype(np.float32)
    return arrays


def nested(arrays):
    modules = {}
    for name, array in arrays.items():
        module, parameter = name.rsplit("/", 1)
        modules.setdefault(module, {})[parameter] = array
    return modules


def split(arrays):
    """As the image models were saved: parameters, and the state of batch norm."""
    modules = nested(arrays)
    return {
        "params": {name: module for name, module in modules.items() if "_ema" not in name},
        "state": {name: module for name, module in modules.items() if "_ema" in name},
    }


def write(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.fixture
def small_file(tmp_path):
    def get(kind, **changes):
        arrays = {name: array for name, array in (random_parameters(kind) | changes).items() if array is not None}
        images = kind in ("learned", "fourier", "conv")
        return write(tmp_path / f"{kind}.pystate", split(arrays) if images else nested(arrays))

    return get


class Oracle:
    """The published formulas on Haiku's parameters, in float64."""

    def __init__(self, kind, arrays):
        self.kind = kind
        self.p = {name: array.astype(np.float64) for name, array in arrays.items()}
        self.heads = HEADS.get(kind, (1, 8, 1))

    def linear(self, x, name):
        return x @ self.p[f"{name}/w"] + self.p[f"{name}/b"]

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * self.p[f"{name}/scale"]
            + self.p[f"{name}/offset"]
        )

    def attend(self, q, k, v, heads, mask):
        q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
        logits = np.einsum("bqhc,bkhc->bhqk", q, k) / math.sqrt(q.shape[-1])
        if mask is not None:
            logits = np.where(mask[:, None], logits, -1e30)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        summed = np.einsum("bhqk,bkhc->bqhc", weights / weights.sum(-1, keepdims=True), v)
        summed = summed.reshape(*summed.shape[:2], -1)
        return summed if mask is None else np.where((mask == 0).all(-1, keepdims=True), 0, summed)

    def layer(self, x, name, heads, inputs=None, mask=None, residual=True):
        normed = self.norm(x, f"{name}/layer_norm")
        keys = normed if inputs is None else self.norm(inputs, f"{name}/layer_norm_1")
        q, k, v = (self.linear(z, f"{name}/attention/linear{s}") for z, s in ((normed, ""), (keys, "_1"), (keys, "_2")))
        y = self.linear(self.attend(q, k, v, heads, mask), f"{name}/attention/linear_3") + (x if residual else 0)
        z = self.norm(y, f"{name}/layer_norm{'_1' if inputs is None else '_2'}")
        z = self.linear(z, f"{name}/mlp/linear")
        z = 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
        return y + self.linear(z, f"{name}/mlp/linear_1")

    def encode(self, tokens, mask=None):
        encoder = ENCODERS.get(self.kind, "perceiver_encoder")
        latents = self.p[f"{encoder}/~/trainable_position_encoding/pos_embs"]
        z = np.broadcast_to(latents, (len(tokens), *latents.shape))
        mask = None if mask is None else outer(np.ones(z.shape[:2]), mask)
        z = self.layer(z, f"{encoder}/~/cross_attention", self.heads[0], tokens, mask)
        for _ in range(BLOCKS[self.kind]):
            for index in range(SMALL[self.kind]["layers"]):
                z = self.layer(z, f"{encoder}/~/self_attention{f'_{index}' if index else ''}", self.heads[1])
        return z

    def decode(self, z, queries, mask=None):
        decoder = DECODERS.get(self.kind, CLASSIFIER)
        queries = np.broadcast_to(queries, (len(z), *queries.shape[-2:]))
        mask = None if mask is None else outer(mask, np.ones(z.shape[:2]))
        y = self.layer(queries, f"{decoder}/cross_attention", self.heads[2], z, mask, residual=self.kind in RESIDUAL)
        return y if self.kind == "text" else self.linear(y, f"{decoder}/output")

    def text(self, input_ids, attention_mask):
        embeddings, positions = self.p["embed/embeddings"], self.p["trainable_position_encoding/pos_embs"]
        z = self.encode(embeddings[input_ids] + positions[: input_ids.shape[1]], attention_mask)
        queries = self.p["basic_decoder/~/trainable_position_encoding/pos_embs"][: input_ids.shape[1]]
        y = self.decode(z, queries, attention_mask)  # the same mask for inputs and queries
        return {"logits": y @ embeddings.T + self.p["embedding_decoder/bias"]}

    def image(self, pixels, positions):
        x = pixels.transpose(0, 2, 3, 1)
        if self.kind == "conv":
            x = self.downsample(x)
        if self.kind == "learned":
            x = x @ self.p["image_preprocessor/~/conv2_d/w"][0, 0] + self.p["image_preprocessor/~/conv2_d/b"]
            positions = self.p[f"{LEARNED}/trainable_position_encoding/pos_embs"]
            positions = self.linear(positions, f"{LEARNED}/position_encoding_projector/linear")
        tokens = with_positions(x.reshape(len(x), -1, x.shape[-1]), positions)
        return {
            "logits": self.decode(self.encode(tokens), self.p[f"{CLASSIFIER}/~/trainable_position_encoding/pos_embs"])[
                :, 0
            ]
        }

    def downsample(self, x):
        """SAME convolution 7 x 7, batch norm with its averages, ReLU, SAME max pool 3 x 3; each of stride 2."""
        windows = same_windows(x, 7, 0.0)
        x = np.einsum("bhwijc,ijco->bhwo", windows, self.p[f"{DOWNSAMPLE}/conv/w"])
        norm = f"{DOWNSAMPLE}/batchnorm"
        x = (x - self.p[f"{norm}/~/mean_ema/average"]) / np.sqrt(self.p[f"{norm}/~/var_ema/average"] + 1e-5)
        x = np.maximum(x * self.p[f"{norm}/scale"] + self.p[f"{norm}/offset"], 0)
        return same_windows(x, 3, -np.inf).max((3, 4))

    def flow(self, patches, positions):
        batch, _, _, height, width = patches.shape
        x = patches.transpose(0, 3, 4, 1, 2).reshape(batch, height * width, 54)
        tokens = with_positions(self.linear(x, "image_preprocessor/patches_linear"), positions)
        return {"flow": (self.decode(self.encode(tokens), tokens) / 100).reshape(batch, height, width, 2)}

    def multimodal(self, image, audio, label, image_points, audio_points, positions):
        batch, frames, _, height, width = image.shape
        x = image.transpose(0, 1, 3, 4, 2).reshape(batch, frames, height // 4, 4, width // 4, 4, 3)
        x = x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(batch, -1, 48)
        tokens = {
            "audio": with_positions(audio.reshape(batch, -1, 16), positions["audio"]),
            "image": with_positions(x, positions["image"]),
            "label": np.zeros((batch, 1, label.shape[1])),
        }
        pads = {name: self.p[f"multimodal_preprocessor/{name}_padding/pos_embs"] for name in tokens}
        tokens = {name: with_positions(token, pads[name]) for name, token in tokens.items()}
        tokens["label"][:] = self.p["multimodal_preprocessor/label_mask_token/pos_embs"]  # masked with probability 1
        z = self.encode(np.concatenate([tokens["audio"], tokens["image"], tokens["label"]], 1))
        queries = {
            "audio": positions["audio_queries"],
            "image": positions["image_queries"],
            "label": self.p[f"{CLASSIFIER}/~/trainable_position_encoding/pos_embs"],
        }
        pads = {name: self.p[f"multimodal_decoder/~decoder_query/{name}_padding/pos_embs"] for name in queries}
        y = self.decode(
            z, np.concatenate([with_positions(query[None], pads[name])[0] for name, query in queries.items()])
        )
        a, b = len(audio_points), len(audio_points) + len(image_points)
        return {
            "audio_reconstruction": self.linear(y[:, :a], "audio_postprocessor/linear").reshape(batch, -1),
            "image_reconstruction": self.linear(y[:, a:b], "projection_postprocessor/linear"),
            "label_logits": self.linear(y[:, b], "classification_postprocessor/linear"),
        }


def outer(queries, keys):
    """Which query [batch, queries] sees which key [batch, keys]: [batch, queries, keys]."""
    return queries[:, :, None] * keys[:, None, :]


def with_positions(tokens, positions):
    return np.concatenate([tokens, np.broadcast_to(positions, (*tokens.shape[:2], positions.shape[-1]))], -1)


def same_windows(x, size, fill):
    """Windows [batch, height, width, size, size, channels] of stride 2 with the padding TensorFlow calls SAME."""
    outs = [-(-n // 2) for n in x.shape[1:3]]
    pads = [max((out - 1) * 2 + size - n, 0) for out, n in zip(outs, x.shape[1:3], strict=True)]
    x = np.pad(x, [(0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)], constant_values=fill)
    rows, columns = (2 * np.arange(out)[:, None] + np.arange(size) for out in outs)
    return x[:, rows[:, None, :, None], columns[None, :, None, :]]


def grid(*sizes):
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in sizes), indexing="ij")
    return np.stack(axes, -1).reshape(-1, len(sizes))


def unravelled(indices, *sizes):
    return np.stack([-1 + 2 * at / n for at, n in zip(np.unravel_index(indices, sizes), sizes, strict=True)], -1)


def agreed(ours, positions, bands, resolution):
    """Our float32 Fourier features, which must be the published ones of these positions but for rounding.

    An angle is at most pi * resolution / 2; it is rounded four times to 24 bits (position, frequency, two products).
    """
    frequencies = np.stack([np.linspace(1, size / 2, bands) for size in resolution])
    angles = math.pi * (positions[:, :, None] * frequencies).reshape(len(positions), -1)
    published = np.concatenate([positions, np.sin(angles), np.cos(angles)], -1)
    np.testing.assert_allclose(ours, published, rtol=0, atol=4 * 2**-24 * math.pi * max(resolution) / 2)
    return ours.numpy()


LIKE = torch.zeros(1, dtype=torch.float64)


def evaluate(model, kind, oracle, inputs):
    sizes = SMALL[kind]
    if kind == "text":
        return oracle.text(**inputs)
    if kind == "flow":
        size = inputs["patches"].shape[3:]
        positions = agreed(model.input_adapter.positions(size, LIKE), grid(*size), sizes["bands"], (368, 496))
        return oracle.flow(inputs["patches"], positions)
    if kind != "multimodal":
        size, resolution = inputs["pixel_values"].shape[2:], (224, 224)
        if kind == "conv":
            size, resolution = tuple(-(-n // 4) for n in size), (56, 56)
        if kind == "learned":
            return oracle.image(inputs["pixel_values"], None)
        positions = agreed(model.input_adapter.positions(size, LIKE), grid(*size), sizes["bands"], resolution)
        return oracle.image(inputs["pixel_values"], positions)
    _, frames, _, height, width = inputs["image"].shape
    patches, volume = inputs["audio"].shape[1] // 16, (frames, height, width)
    video, audio = (sizes["bands"], (16, 56, 56)), (sizes["audio"], (30720,))
    adapters, queries, points = model.input_adapter.modalities, model.output_queries, {}
    tokens = (frames, height // 4, width // 4)
    points["image"] = agreed(adapters["image"].positions(tokens, LIKE), grid(*tokens), *video)
    points["audio"] = agreed(adapters["audio"].positions((patches,), LIKE), grid(patches), *audio)
    for name, sized, encoding, bands in (
        ("image", volume, queries.image_positions, video),
        ("audio", (patches,), queries.audio_positions, audio),
    ):
        indices = inputs[f"{name}_points"]
        ours = encoding.features(indexed_positions(torch.from_numpy(indices), sized)).double()
        points[f"{name}_queries"] = agreed(ours, unravelled(indices, *sized), *bands)
    return oracle.multimodal(**inputs, positions=points)


def some_inputs(kind, shape, seed=1):
    rng = np.random.default_rng(seed)
    if kind == "text":
        mask = np.ones(shape, np.int64)
        mask[0, (shape[1] + 1) // 2 :] = 0
        mask[-1] = 0  # wiped in DeepMind's code
        return {"input_ids": rng.integers(0, SMALL[kind]["vocabulary"], shape), "attention_mask": mask}
    if kind == "flow":
        return {"patches": rng.standard_normal((shape[0], 2, 27, *shape[1:]))}
    if kind != "multimodal":
        return {"pixel_values": rng.standard_normal((shape[0], 3, *shape[1:]))}
    batch, frames, height, width, patches = shape
    return {
        "image": rng.random((batch, frames, 3, height, width)),
        "audio": rng.standard_normal((batch, 16 * patches, 1)),
        "label": rng.random((batch, SMALL[kind]["label"])),
        "image_points": rng.integers(0, frames * height * width, 7),
        "audio_points": rng.integers(0, patches, 3),
    }


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("text", (3, 20)),
        ("text", (2, 7)),
        ("learned", (2, 8, 8)),
        ("fourier", (2, 9, 12)),
        ("fourier", (1, 16, 5)),
        ("conv", (2, 32, 24)),
        ("conv", (1, 21, 34)),
        ("conv", (2, 15, 13)),
        ("flow", (2, 8, 11)),
        ("flow", (1, 5, 6)),
        ("multimodal", (2, 3, 8, 12, 6)),
        ("multimodal", (1, 1, 4, 16, 5)),
    ],
)
def test_a_loaded_model_computes_the_published_formulas(small_file, kind, shape):
    model = load_haiku(small_file(kind)).double()
    inputs = some_inputs(kind, shape)
    with torch.no_grad():
        outputs = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    expected = evaluate(model, kind, Oracle(kind, random_parameters(kind)), inputs)
    assert outputs.keys() == expected.keys()
    for name, output in outputs.items():
        assert relative_l2(output.numpy(), expected[name]) <= FLOAT64, name


@pytest.mark.parametrize("kind", SMALL)
def test_the_configuration_says_which_semantics_the_checkpoint_carries(small_file, kind):
    config = load_haiku(small_file(kind)).config
    assert dataclasses.astuple(config.semantics)[:3] == ("gelu_tanh", "zeros", "zeros")
    assert config.decoder.cross_attention.use_query_residual == (kind in RESIDUAL)
    assert config.labels is None


@pytest.mark.parametrize(("size", "tokens"), [((224, 224), (56, 56)), ((223, 226), (56, 57)), ((5, 6), (2, 2))])
def test_a_stem_with_same_padding_quarters_the_size_and_rounds_up(size, tokens):
    assert ConvStem(3, 2, "same")(torch.zeros(1, 3, *size)).shape[2:] == tokens


def test_a_stem_with_same_padding_exports_with_odd_and_even_sizes(tmp_path):
    config = small_config("conv")
    config = dataclasses.replace(config, input=dataclasses.replace(config.input, stem_padding="same"))
    model = perturbed_model(config)
    export_model(model, tmp_path / "bundle")
    for runtime in ("onnxruntime", "openvino"):
        session = load(tmp_path / "bundle", runtime=runtime)
        for batch, height, width in ((1, 16, 20), (2, 15, 20), (3, 14, 13), (1, 5, 6), (1, 37, 35)):
            inputs = image_inputs(batch, height, width)
            with torch.no_grad():
                expected = model.double()(**tensors(inputs, torch.float64))["logits"]
            # float32 is up to 1e-6 away from float64 here; padding at the wrong end moves the logits by 1
            assert relative_l2(session.run(inputs)["logits"], expected) <= 1e-5


@pytest.mark.parametrize("size", [(16, 20), (15, 13)])
def test_the_padding_of_the_stem_is_honoured(size):
    """The same weights with the other padding are another model."""
    fixed, same = ConvStem(3, 4), ConvStem(3, 4, "same")
    same.load_state_dict(fixed.state_dict())
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    assert fixed.eval()(pixels).shape != same.eval()(pixels).shape


def test_padding_is_a_choice_of_the_convolutional_stem_only():
    with pytest.raises(ValueError, match="only 'conv' pads"):
        ImageInput("pixels", FourierPositions(4, (8, 8)), stem_padding="same")


@pytest.mark.full
@pytest.mark.parametrize("kind", PUBLISHED)
def test_parameters_of_the_published_shapes_make_the_published_model(monkeypatch, tmp_path, kind):
    shapes = shapes_of(kind, PUBLISHED[kind])
    arrays = {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}
    monkeypatch.setattr(haiku, "read_pickle", lambda path: split(arrays))
    model = load_haiku(tmp_path / "published.pystate")
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[kind]
    assert model.config.encoder.num_self_attends_per_block == PUBLISHED[kind]["layers"]


class Stub:
    """A class of another package: pickled as calling `name` of `module` with `arguments`, a stub of which is there."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.fixture
def stub(monkeypatch):
    """`stub(module, name)` is a function that pickles as that global of a package which is not installed."""

    def get(module, name):
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            monkeypatch.setitem(sys.modules, path, sys.modules.get(path) or types.ModuleType(path))

        def function(*arguments):
            raise AssertionError("called")

        function.__module__, function.__qualname__ = module, name
        monkeypatch.setattr(sys.modules[module], name, function, raising=False)
        return function

    return get


def as_jax(array, reconstruct):
    return Stub(reconstruct, *array.__reduce__(), {"weak_type": False})


def assert_same_modules(found, expected):
    assert found.keys() == expected.keys()
    for module, arrays in expected.items():
        assert found[module].keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[module][name].dtype == array.dtype
            np.testing.assert_array_equal(found[module][name], array, strict=True)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("container", ["dict", "FlatMapping", "FlatMap", "frozendict"])
def test_containers_of_haiku_become_dicts_in_every_protocol(stub, tmp_path, container, protocol):
    modules = nested(random_parameters("conv"))
    content = modules
    if container != "dict":
        function = stub("haiku._src.data_structures", container)
        content = Stub(function, {name: Stub(function, arrays) for name, arrays in modules.items()})
    assert_same_modules(read_pickle(write(tmp_path / "a.pickle", content, protocol)), modules)


@pytest.mark.parametrize(
    "name", ["jax._src.array._reconstruct_array", "jax._src.device_array.reconstruct_device_array"]
)
def test_arrays_of_jax_become_arrays_of_numpy(stub, tmp_path, name):
    reconstruct = stub(*name.rsplit(".", 1))
    modules = nested(random_parameters("conv"))
    content = {m: {n: as_jax(array, reconstruct) for n, array in arrays.items()} for m, arrays in modules.items()}
    assert_same_modules(read_pickle(write(tmp_path / "a.pickle", content)), modules)


@pytest.mark.parametrize("package", [b"numpy.core", b"numpy._core"])
def test_arrays_of_both_numpy_1_and_2_are_read(tmp_path, package):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))}
    path = tmp_path / "a.pickle"
    path.write_bytes(pickle.dumps(arrays, 2).replace(b"numpy._core", package).replace(b"numpy.core", package))
    read = read_pickle(path)
    np.testing.assert_array_equal(read["a"], arrays["a"])
    np.testing.assert_array_equal(read["b"], arrays["b"])
    assert read["b"].dtype == np.float32  # of this machine's byte order: torch takes no other


def test_a_scalar_of_numpy_is_an_array_without_dimensions(tmp_path):
    assert read_pickle(write(tmp_path / "a.pickle", np.float32(1.5))) == np.asarray(1.5)


ATTACKS = {
    "os.system": (os.system, "posix.system"),
    "builtins.eval": (eval, "builtins.eval"),
    "builtins.getattr": (getattr, "builtins.getattr"),
    "subprocess.run": (subprocess.run, "subprocess.run"),
    "numpy.load": (np.load, "numpy.load"),
}


@pytest.mark.parametrize("place", ["alone", "in the parameters", "in an array", "as the dtype"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pickle_that_names_anything_else_is_refused_and_not_run(tmp_path, attack, place):
    function, named = ATTACKS[attack]
    trace = tmp_path / "trace"
    bomb = Stub(function, f"__import__('os').mkdir({str(trace)!r})" if attack != "os.system" else f"mkdir {trace}")
    content = {
        "alone": bomb,
        "in the parameters": nested(random_parameters("text")) | {"module": {"w": bomb}},
        "in an array": {"module": {"w": np.array([bomb], dtype=object)}},
        "as the dtype": {"module": {"w": Stub(np.dtype, bomb)}},
    }[place]
    path = write(tmp_path / "a.pickle", content)
    with pytest.raises(CheckpointError, match=f"was not loaded: it names {named}"):
        load_haiku(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "array",
    [np.array([{}], dtype=object), np.zeros(2, "V8"), np.array(["text"]), np.zeros(2, "M8[s]"), np.zeros(2, "f4,f4")],
)
def test_an_array_of_anything_but_numbers_is_refused(tmp_path, array):
    path = write(tmp_path / "a.pickle", {"module": {"w": array}})
    with pytest.raises(CheckpointError, match="an array that is not of numbers"):
        load_haiku(path)


def test_attributes_that_a_pickle_sets_on_what_it_names_are_gone_with_the_file(tmp_path):
    hostile = tmp_path / "a.pickle"
    hostile.write_bytes(b"\x80\x02ccollections\nOrderedDict\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.")
    with pytest.raises(CheckpointError, match="no parameters of Haiku"):
        load_haiku(hostile)
    assert read_pickle(write(tmp_path / "b.pickle", OrderedDict(a=1))) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"mlp/~/linear_0": {"w": np.zeros((2, 3))}}, "another project"),
        ({}, "another project"),
        ({"state": {}, "params": {}}, "another project"),
        ([np.zeros(3)], "no parameters of Haiku"),
        (np.zeros(3), "no parameters of Haiku"),
        ({"layer.weight": np.zeros(3)}, "found ndarray at 'layer.weight'"),
        ({1: {"w": np.zeros(3)}}, "no parameters of Haiku"),
        ({"linear": {"w": 1.0}}, "linear/w is float"),
    ],
)
def test_a_pickle_of_another_project_is_one_clear_error(tmp_path, content, problem):
    path = write(tmp_path / "other.pickle", content)
    with pytest.raises(CheckpointError, match=problem) as caught:
        load_haiku(path)
    assert str(path) in str(caught.value)


def test_a_truncated_empty_absent_or_endless_pickle_is_one_clear_error(small_file, tmp_path):
    whole = small_file("text").read_bytes()
    nest = []
    nest.append(nest)
    for content in (b"", whole[:1000], whole[:-1], b"no pickle", b"\x80\x04" + whole[:50], pickle.dumps(nest)):
        path = tmp_path / "broken.pickle"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"broken\.pickle cannot be read"):
            load_haiku(path)
    for path in (tmp_path / "absent.pickle", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_haiku(path)


def test_a_container_that_holds_another_many_times_over_takes_no_time(tmp_path):
    content = {"w": np.zeros(1)}
    for _ in range(100):
        content = {"a": content, "b": content}
    with pytest.raises(CheckpointError, match="expected an array"):
        load_haiku(write(tmp_path / "many.pickle", content))


@pytest.mark.parametrize(
    ("kind", "changes", "problem"),
    [
        ("text", {"embedding_decoder/bias": None}, r"1 missing \(embedding_decoder/bias\)"),
        ("text", {"basic_decoder/output/w": np.zeros((2, 2))}, r"1 unexpected \(basic_decoder/output/w\)"),
        ("text", {"embedding_decoder/bias": np.zeros(7)}, "embedding_decoder/bias is"),
        (
            "text",
            {"basic_decoder/cross_attention/layer_norm/scale": None},
            "basic_decoder/cross_attention/layer_norm/scale",
        ),
        ("text", {"perceiver_encoder/~/cross_attention/attention/linear_1/w": np.zeros((24, 15))}, "15"),
        ("fourier", {"perceiver_encoder/~/cross_attention/layer_norm_1/scale": np.zeros(30)}, "27 channels"),
        ("learned", {f"{LEARNED}/trainable_position_encoding/pos_embs": np.zeros((63, 10))}, "63 learned positions"),
        ("conv", {f"{DOWNSAMPLE}/batchnorm/~/mean_ema/average": None}, "batchnorm/~/mean_ema/average"),
        ("conv", {f"{DOWNSAMPLE}/conv/w": np.zeros((7, 3))}, "conv/w is .7, 3., expected 4 dimensions"),
        ("flow", {"image_preprocessor/patches_linear/b": None}, "image_preprocessor/patches_linear/b"),
        ("multimodal", {"multimodal_preprocessor/label_mask_token/pos_embs": None}, "label_mask_token/pos_embs"),
        ("multimodal", {"encoder/~/self_attention/mlp/linear/w": np.zeros((0, 0))}, "mlp/linear"),
    ],
)
def test_a_parameter_that_is_missing_unexpected_or_misshapen_is_named(small_file, kind, changes, problem):
    with pytest.raises(CheckpointError, match=problem):
        load_haiku(small_file(kind, **changes))
