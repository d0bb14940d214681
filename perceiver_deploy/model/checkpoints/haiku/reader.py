"""Checkpoints of DeepMind's published Perceiver IO models: pickles of Haiku parameters, without any configuration.

Sizes are read from the shapes of the parameters. What shapes do not show (heads, repeated blocks, resolutions, the
residual of the decoder) is fixed here for each model, as its notebook in deepmind-research/perceiver/colabs has it.
Names are those that Haiku gives the modules of deepmind-research/perceiver.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_deploy.bundle.preprocessing import FlowPreprocessing, ImagePreprocessing, TextPreprocessing
from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.checkpoints.haiku.names import BATCH_NORM, CLASSIFIER, LEARNED, POSITIONS, haiku_name
from perceiver_deploy.model.checkpoints.haiku.pickle_reader import read_pickle
from perceiver_deploy.model.checkpoints.tensors import assign_tensors, build_on_meta
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig, Semantics
from perceiver_deploy.model.inputs.audio import AudioInput
from perceiver_deploy.model.inputs.flow import FlowInput
from perceiver_deploy.model.inputs.image import ImageInput
from perceiver_deploy.model.inputs.label import LabelInput
from perceiver_deploy.model.inputs.multimodal import MultimodalInput
from perceiver_deploy.model.inputs.text import TextInput
from perceiver_deploy.model.inputs.video import VideoInput
from perceiver_deploy.model.positions import FourierPositions, LearnedPositions
from perceiver_deploy.model.tasks.catalogue import PerceiverModel

_IMAGE_SIZE = (224, 224)
_FLOW_SIZE = (368, 496)
_CLIP, _PATCH_SIZE, _AUDIO_SAMPLES = (16, 224, 224), 4, 16 * 1920
_STATE_UNUSED = re.compile(rf"{BATCH_NORM}/~/(mean_ema/hidden|var_ema/(hidden|counter))")
"""The averages before their bias is removed, and the second copy of how many there were: only training needs them."""


def load_haiku(path: Path) -> PerceiverModel:
    """Build the published model whose parameters are in a `.pickle` or `.pystate` file, and give it all of them.

    Raises:
        CheckpointError: no pickle of arrays, parameters of none of the published models, or some that do not fit.
    """
    parameters = _Parameters(path, _flatten(read_pickle(path), path))
    kind = next((kind for kind in _KINDS if kind.marker in parameters.arrays), None)
    if kind is None:
        raise CheckpointError(
            f"{path} holds parameters of another project: it has none of {', '.join(k.marker for k in _KINDS)}, by "
            f"which the published Perceivers are told apart, but {', '.join(list(parameters.arrays)[:3]) or 'nothing'}."
        )
    config = _convert_config(kind, parameters)
    model = build_on_meta(config, path)
    names = {name: haiku_name(name, kind.encoder, kind.decoder) for name in model.state_dict()}
    tensors = {name: _to_torch(name, array) for name, array in parameters.arrays.items()}
    assign_tensors(model, tensors, names, path)
    return model.eval()


@dataclass(frozen=True)
class _Parameters:
    """Arrays by Haiku's name of module and parameter, joined by a slash."""

    path: Path
    arrays: dict[str, NDArray[Any]]

    def shape(self, name: str, rank: int = 2) -> tuple[int, ...]:
        """Shape of an array, which must be there, have this rank and not be empty."""
        if name not in self.arrays:
            raise CheckpointError(f"{self.path} is incomplete: the parameter {name} is missing.")
        shape = self.arrays[name].shape
        if len(shape) != rank or 0 in shape:
            raise CheckpointError(f"{self.path}: {name} is {list(shape)}, expected {rank} dimensions, none of them 0.")
        return shape


def _flatten(content: Any, path: Path) -> dict[str, NDArray[Any]]:
    parts = [content]
    if isinstance(content, dict) and "params" in content:
        parts = [content["params"], content.get("state") or {}]
    arrays: dict[str, NDArray[Any]] = {}
    for part in parts:
        modules = part.items() if isinstance(part, dict) else [(None, part)]
        for module, parameters in modules:
            if not isinstance(module, str) or not isinstance(parameters, dict):
                raise CheckpointError(
                    f"{path} holds no parameters of Haiku: expected a dict of module names to dicts of arrays, found "
                    f"{type(parameters).__name__} at {module!r}."
                )
            for name, array in parameters.items():
                if not isinstance(array, np.ndarray):
                    raise CheckpointError(f"{path}: {module}/{name} is {type(array).__name__}, expected an array.")
                arrays[f"{module}/{name}"] = array
    return {name: array for name, array in arrays.items() if not _STATE_UNUSED.fullmatch(name)}


def _to_torch(name: str, array: NDArray[Any]) -> Tensor:
    """Linear weights [in, out] become [out, in], convolutions [height, width, in, out] [out, in, height, width]."""
    tensor = torch.from_numpy(array)
    if name.startswith(BATCH_NORM):
        return tensor.long() if name.endswith("/counter") else tensor.flatten()
    if name.endswith("/w"):
        tensor = tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.mT if tensor.ndim == 2 else tensor
    return tensor.contiguous()


def _attention(parameters: _Parameters, layer: str, num_heads: int, *, residual: bool = True) -> AttentionConfig:
    channels, hidden = parameters.shape(f"{layer}/mlp/linear/w")
    return AttentionConfig(
        num_heads=num_heads,
        qk_channels=parameters.shape(f"{layer}/attention/linear_1/w")[1],
        v_channels=parameters.shape(f"{layer}/attention/linear_2/w")[1],
        widening_factor=hidden // max(channels, 1),
        use_query_residual=residual,
    )


def _convert_config(kind: _Kind, parameters: _Parameters) -> PerceiverConfig:
    encoder, decoder = kind.encoder, kind.decoder
    num_latents, d_latents = parameters.shape(f"{encoder}/~/trainable_position_encoding/{POSITIONS}")
    layers = {
        match[0] for name in parameters.arrays if (match := re.match(rf"{encoder}/~/self_attention(_\d+)?/", name))
    }
    (query_channels,) = parameters.shape(f"{decoder}/cross_attention/layer_norm/scale", 1)
    projection, queries = f"{decoder}/output/w", f"{decoder}/~/trainable_position_encoding/{POSITIONS}"
    try:
        parts = kind.convert(parameters, parameters.shape(f"{encoder}/~/cross_attention/layer_norm_1/scale", 1)[0])
        return PerceiverConfig(
            encoder=EncoderConfig(
                num_latents=num_latents,
                d_latents=d_latents,
                num_blocks=kind.num_blocks,
                num_self_attends_per_block=len(layers),
                cross_attention=_attention(parameters, f"{encoder}/~/cross_attention", kind.cross_heads),
                self_attention=_attention(parameters, f"{encoder}/~/self_attention", kind.self_heads),
            ),
            decoder=DecoderConfig(
                num_queries=parameters.shape(queries)[0] if queries in parameters.arrays else None,
                query_channels=query_channels,
                cross_attention=_attention(
                    parameters, f"{decoder}/cross_attention", kind.decoder_heads, residual=kind.decoder_residual
                ),
                output_channels=parameters.shape(projection)[1] if kind.projected else None,
                **parts.pop("decoder", {}),
            ),
            semantics=Semantics("gelu_tanh", fully_masked_rows="zeros", masked_queries="zeros"),
            **parts,
        )
    except ValueError as error:
        raise CheckpointError(f"{parameters.path} has shapes that make no published model: {error}.") from None


def _text(parameters: _Parameters, channels: int) -> dict[str, Any]:
    vocabulary, _ = parameters.shape("embed/embeddings")
    length, _ = parameters.shape(f"trainable_position_encoding/{POSITIONS}")
    return {
        "task": "masked_lm",
        "input": TextInput(vocabulary, length, channels),
        "preprocessing": TextPreprocessing(),
    }


def _fourier_bands(channels: int, dimensions: int) -> int:
    """How many bands make this many channels of positions, sines and cosines."""
    bands, rest = divmod(channels - dimensions, 2 * dimensions)
    if rest or bands < 1:
        raise ValueError(f"{channels} channels of Fourier features in {dimensions} dimensions")
    return bands


def _image(image: ImageInput) -> dict[str, Any]:
    preprocessing = ImagePreprocessing(
        size=image.image_size, crop_fraction=224 / 256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    return {"task": "image_classification", "input": image, "preprocessing": preprocessing}


def _learned_image(parameters: _Parameters, channels: int) -> dict[str, Any]:
    places, table_channels = parameters.shape(f"{LEARNED}/trainable_position_encoding/{POSITIONS}")
    size = math.isqrt(places)
    if size * size != places:
        raise ValueError(f"{places} learned positions are of no square image")
    _, projected = parameters.shape(f"{LEARNED}/position_encoding_projector/linear/w")
    _, _, colours, stem = parameters.shape("image_preprocessor/~/conv2_d/w", 4)
    table = LearnedPositions((size, size), table_channels, projected)
    return _image(ImageInput("conv1x1", table, stem, (size, size), colours))


def _conv_image(parameters: _Parameters, channels: int) -> dict[str, Any]:
    _, _, colours, stem = parameters.shape("image_preprocessor/~/conv2_d_downsample/~/conv/w", 4)
    positions = FourierPositions(_fourier_bands(channels - stem, 2), max_resolution=(56, 56))
    return _image(ImageInput("conv", positions, stem, _IMAGE_SIZE, colours, stem_padding="same"))


def _fourier_image(parameters: _Parameters, channels: int) -> dict[str, Any]:
    positions = FourierPositions(_fourier_bands(channels - 3, 2), max_resolution=_IMAGE_SIZE)
    return _image(ImageInput("pixels", positions, image_size=_IMAGE_SIZE))


def _flow(parameters: _Parameters, channels: int) -> dict[str, Any]:
    _, projected = parameters.shape("image_preprocessor/patches_linear/w")
    positions = FourierPositions(_fourier_bands(channels - projected, 2), max_resolution=_FLOW_SIZE)
    flow = FlowInput(positions, projected, _FLOW_SIZE)
    return {"task": "optical_flow", "input": flow, "preprocessing": FlowPreprocessing.for_size(_FLOW_SIZE)}


def _multimodal(parameters: _Parameters, channels: int) -> dict[str, Any]:
    def width(modality: str) -> int:
        return channels - parameters.shape(f"multimodal_preprocessor/{modality}_padding/{POSITIONS}")[1]

    _, samples_per_patch = parameters.shape("audio_postprocessor/linear/w")
    frames, height, image_width = _CLIP
    grid = (frames, height // _PATCH_SIZE, image_width // _PATCH_SIZE)
    video = FourierPositions(_fourier_bands(width("image") - 3 * _PATCH_SIZE**2, 3), max_resolution=grid)
    audio = FourierPositions(_fourier_bands(width("audio") - samples_per_patch, 1), max_resolution=(_AUDIO_SAMPLES,))
    label_query = f"classification_decoder/~/basic_decoder/~/trainable_position_encoding/{POSITIONS}"
    return {
        "task": "multimodal_autoencoding",
        "input": MultimodalInput(
            modalities={
                "audio": AudioInput(audio, _AUDIO_SAMPLES, samples_per_patch),
                "image": VideoInput(video, _PATCH_SIZE, _CLIP),
                "label": LabelInput(width("label")),
            },
            min_padding=channels - max(width(modality) for modality in ("audio", "image", "label")),
            mask_probabilities={"audio": 0.0, "image": 0.0, "label": 1.0},
        ),
        "decoder": {"label_query_channels": parameters.shape(label_query)[1]},
    }


@dataclass(frozen=True)
class _Kind:
    """A published model: the parameter that only it has, where its parts are, and what shapes do not show."""

    marker: str
    convert: Callable[[_Parameters, int], dict[str, Any]]
    decoder: str
    num_blocks: int
    self_heads: int
    cross_heads: int = 1
    decoder_heads: int = 1
    decoder_residual: bool = False
    projected: bool = True
    encoder: str = "perceiver_encoder"


# The last has no parameters of its own input, so that its marker is one that others have too.
_KINDS = (
    _Kind("embed/embeddings", _text, "basic_decoder", 1, 8, cross_heads=8, decoder_heads=8, projected=False),
    _Kind("image_preprocessor/~/conv2_d/w", _learned_image, CLASSIFIER, 8, 8),
    _Kind("image_preprocessor/~/conv2_d_downsample/~/conv/w", _conv_image, CLASSIFIER, 8, 8, decoder_residual=True),
    _Kind("image_preprocessor/patches_linear/w", _flow, "flow_decoder/~/basic_decoder", 1, 16),
    _Kind(
        f"multimodal_preprocessor/image_padding/{POSITIONS}",
        _multimodal,
        "multimodal_decoder/~/basic_decoder",
        1,
        8,
        encoder="encoder",
    ),
    _Kind(f"{CLASSIFIER}/output/w", _fourier_image, CLASSIFIER, 8, 8, decoder_residual=True),
)
