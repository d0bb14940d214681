"""The models: one class a task, each an input adapter, the encoder, the decoder and what its output needs.

A model trains and exports as it is. Its `signature` names inputs, outputs and axes in the order of `forward`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.manifest import Axis, Signature, Stage, TensorSpec
from perceiver_deploy.model.config import ImageInput, LearnedPositions, PerceiverConfig, TextInput
from perceiver_deploy.model.decoder import PerceiverDecoder
from perceiver_deploy.model.encoder import PerceiverEncoder
from perceiver_deploy.model.input_adapters import ConvStem, ImageInputAdapter, TextInputAdapter

_BATCH = Axis(opt=1)
_TEXT_OPT_LENGTH = 512


class MaskedLanguageModel(nn.Module):
    """Bytes to logits over the vocabulary at every position of the given length."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.config = config
        text = _text_input(config)
        self.input_adapter = TextInputAdapter(text, config.initializer_range)
        self.encoder = PerceiverEncoder(config, self.input_adapter.channels)
        self.decoder = PerceiverDecoder(config)
        self.output_bias = nn.Parameter(torch.zeros(text.vocab_size))

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        return _text_signature(self.config, ("batch", "length", _text_input(self.config).vocab_size))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` [batch, length] to `logits` [batch, length, vocab]."""
        latents = self.encoder(self.input_adapter(input_ids), attention_mask)
        decoded = self.decoder(latents, input_ids.shape[1])
        return {"logits": decoded @ self.input_adapter.embeddings.weight.T + self.output_bias}


class TextClassifier(nn.Module):
    """Bytes to class logits."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.config = config
        self.input_adapter = TextInputAdapter(_text_input(config), config.initializer_range)
        self.encoder = PerceiverEncoder(config, self.input_adapter.channels)
        self.decoder = PerceiverDecoder(config)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        return _text_signature(self.config, ("batch", _classes(self.config)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` [batch, length] to `logits` [batch, classes]."""
        latents = self.encoder(self.input_adapter(input_ids), attention_mask)
        return {"logits": self.decoder(latents, 1)[:, 0]}


class ImageClassifier(nn.Module):
    """Images to class logits."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.config = config
        self.input_adapter = ImageInputAdapter(_image_input(config), config.initializer_range)
        self.encoder = PerceiverEncoder(config, self.input_adapter.channels)
        self.decoder = PerceiverDecoder(config)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes; a learned position table bounds height and width."""
        image = _image_input(self.config)
        bounds = image.positions.index_dims if isinstance(image.positions, LearnedPositions) else (None, None)
        least = ConvStem.min_size if image.stem == "conv" else 1
        axes = {"batch": _BATCH}
        for name, opt, bound in zip(("height", "width"), image.image_size, bounds, strict=True):
            axes[name] = Axis(min=least, opt=opt, max=bound)
        pixels = TensorSpec(
            name="pixel_values", dtype="float32", shape=("batch", image.image_channels, "height", "width")
        )
        logits = TensorSpec(name="logits", dtype="float32", shape=("batch", _classes(self.config)))
        return Signature(task=self.config.task, axes=axes, stage=Stage(inputs=(pixels,), outputs=(logits,)))

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """`pixel_values` [batch, 3, height, width] to `logits` [batch, classes]."""
        latents = self.encoder(self.input_adapter(pixel_values))
        return {"logits": self.decoder(latents, 1)[:, 0]}


PerceiverModel = MaskedLanguageModel | TextClassifier | ImageClassifier
_MODELS: dict[str, type[PerceiverModel]] = {
    "masked_lm": MaskedLanguageModel,
    "text_classification": TextClassifier,
    "image_classification": ImageClassifier,
}


def build_model(config: PerceiverConfig) -> PerceiverModel:
    """A freshly initialised model of the configuration's task."""
    return _MODELS[config.task](config)


def _text_input(config: PerceiverConfig) -> TextInput:
    assert isinstance(config.input, TextInput)
    return config.input


def _image_input(config: PerceiverConfig) -> ImageInput:
    assert isinstance(config.input, ImageInput)
    return config.input


def _classes(config: PerceiverConfig) -> int:
    if config.decoder.output_channels is None:
        raise ValueError(f"task {config.task!r} needs decoder.output_channels")
    return config.decoder.output_channels


def _text_signature(config: PerceiverConfig, logits_shape: tuple[int | str, ...]) -> Signature:
    text = _text_input(config)
    shape = ("batch", "length")
    opt = min(_TEXT_OPT_LENGTH, text.max_length)
    return Signature(
        task=config.task,
        axes={"batch": _BATCH, "length": Axis(opt=opt, max=text.max_length)},
        stage=Stage(
            inputs=(
                TensorSpec(name="input_ids", dtype="int64", shape=shape, minimum=0, maximum=text.vocab_size - 1),
                TensorSpec(name="attention_mask", dtype="int64", shape=shape, minimum=0, maximum=1),
            ),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=logits_shape),),
        ),
    )
