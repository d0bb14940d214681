"""Our configuration of a model of lucidrains' perceiver-pytorch.

Source: perceiver-pytorch 0.8.8 and 0.11.0 on PyPI.
"""

from __future__ import annotations

from perceiver_deploy.bundle.manifest import Task
from perceiver_deploy.model.checkpoints.lucidrains.options import (
    INPUT_SIZES,
    Options,
    PerceiverIOOptions,
    PerceiverLMOptions,
    PerceiverOptions,
)
from perceiver_deploy.model.config import (
    AttentionConfig,
    DecoderConfig,
    EncoderConfig,
    MeanDecoderConfig,
    PerceiverConfig,
    Semantics,
    Sharing,
)
from perceiver_deploy.model.inputs.audio import AudioInput
from perceiver_deploy.model.inputs.catalogue import Input
from perceiver_deploy.model.inputs.image import ImageInput
from perceiver_deploy.model.inputs.text import TextInput
from perceiver_deploy.model.inputs.tokens import TokensInput
from perceiver_deploy.model.inputs.video import VideoInput
from perceiver_deploy.model.positions import FourierPositions

_WIDENING_FACTOR = 4  # FeedForward(mult=4), which no argument changes
_SEMANTICS = Semantics("geglu", fully_masked_rows="mean", masked_queries="attend")


def convert_options(options: Options) -> PerceiverConfig:
    """The same model in our terms."""
    if isinstance(options, PerceiverOptions):
        return _perceiver(options)
    assert isinstance(options, PerceiverIOOptions | PerceiverLMOptions)
    return _perceiver_io(options)


def _perceiver(options: PerceiverOptions) -> PerceiverConfig:
    sharing: Sharing = "from_second" if options.weight_tie_layers else "none"
    task, inputs = _task_and_input(options)
    return PerceiverConfig(
        task=task,
        input=inputs,
        encoder=EncoderConfig(
            num_latents=options.num_latents,
            d_latents=options.latent_dim,
            num_blocks=options.depth,
            num_self_attends_per_block=options.self_per_cross_attn,
            cross_attention=_attention(options.cross_heads, options.cross_dim_head),
            self_attention=_attention(options.latent_heads, options.latent_dim_head),
            num_cross_attentions=options.depth,
            cross_attention_sharing=sharing,
            block_sharing=sharing,
        ),
        decoder=MeanDecoderConfig(options.num_classes, norm=True),
        semantics=_SEMANTICS,
        dropout=options.attn_dropout,
        initializer_range=1.0,
    )


def _perceiver_io(options: PerceiverIOOptions | PerceiverLMOptions) -> PerceiverConfig:
    tied = options.weight_tie_layers
    task, inputs, query_channels, output_channels = _task_input_and_output(options)
    return PerceiverConfig(
        task=task,
        input=inputs,
        encoder=EncoderConfig(
            num_latents=options.num_latents,
            d_latents=options.latent_dim,
            num_blocks=options.depth if tied else 1,
            num_self_attends_per_block=1 if tied else options.depth,
            cross_attention=_attention(options.cross_heads, options.cross_dim_head),
            self_attention=_attention(options.latent_heads, options.latent_dim_head),
        ),
        decoder=DecoderConfig(
            num_queries=None,
            query_channels=query_channels,
            cross_attention=_attention(
                options.cross_heads,
                options.cross_dim_head,
                widening_factor=_WIDENING_FACTOR if options.decoder_ff else 0,
                residual=False,
            ),
            output_channels=output_channels,
        ),
        semantics=_SEMANTICS,
        initializer_range=1.0,
    )


def _task_input_and_output(options: PerceiverIOOptions | PerceiverLMOptions) -> tuple[Task, Input, int, int | None]:
    """Also the channels of queries and of outputs, which are None where queries are not projected."""
    if isinstance(options, PerceiverIOOptions):
        return "tokens", TokensInput(options.dim), options.queries_dim, options.logits_dim
    text = TextInput(options.num_tokens, options.max_seq_len, options.dim)
    return "masked_lm", text, options.dim, options.num_tokens


def _attention(
    heads: int, head_size: int, *, widening_factor: int = _WIDENING_FACTOR, residual: bool = True
) -> AttentionConfig:
    channels = heads * head_size
    return AttentionConfig(heads, channels, channels, widening_factor, residual, qkv_bias=False)


def _task_and_input(options: PerceiverOptions) -> tuple[Task, Input]:
    axes = options.input_axis
    size = tuple(options.input_size or INPUT_SIZES[axes])
    positions = FourierPositions(options.num_freq_bands, (options.max_freq,) * axes, order="by_dimension")
    if axes == 1:
        return "audio_classification", AudioInput(positions, size[0] * options.input_channels, options.input_channels)
    if axes == 2:
        image = ImageInput("pixels", positions, image_size=(size[0], size[1]), image_channels=options.input_channels)
        return "image_classification", image
    return "video_classification", VideoInput(positions, patch_size=1, clip=(size[0], size[1], size[2]))
