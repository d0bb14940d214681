"""Our configuration of a model of krasserm's perceiver-io 0.11.

Source: the backend.py of each model in perceiver-io 0.11.0 on PyPI, for what a value of None means there.
"""

from __future__ import annotations

from perceiver_deploy.bundle.preprocessing import FlowPreprocessing, Preprocessing, TextPreprocessing
from perceiver_deploy.model.checkpoints.krasserm.options import (
    ClassificationDecoderOptions,
    DecoderOptions,
    FlowDecoderOptions,
    FlowEncoderOptions,
    ImageEncoderOptions,
    Kind,
    KrassermOptions,
    TextDecoderOptions,
    TextEncoderOptions,
)
from perceiver_deploy.model.config import AttentionConfig, DecoderConfig, EncoderConfig, PerceiverConfig, Semantics
from perceiver_deploy.model.inputs.catalogue import Input
from perceiver_deploy.model.inputs.flow import FlowInput
from perceiver_deploy.model.inputs.image import ImageInput
from perceiver_deploy.model.inputs.text import TextInput
from perceiver_deploy.model.positions import FourierPositions

_BYTE_VOCABULARY = 262  # 256 bytes and 6 special tokens: the tokenizer of DeepMind's language model
_FLOW_PATCH_CHANNELS = 27
_FLOW_RESCALE = 100.0


def convert_options(kind: Kind, options: KrassermOptions, labels: tuple[str, ...] | None) -> PerceiverConfig:
    """The same model in our terms.

    Raises:
        ValueError: a value that no task of ours can express; the message names it.
    """
    inputs, channels = _input(options)
    return PerceiverConfig(
        task=kind,
        input=inputs,
        encoder=_encoder(options, channels),
        decoder=_decoder(options, channels),
        semantics=Semantics("gelu", fully_masked_rows="mean", masked_queries="attend"),
        dropout=options.encoder.dropout,
        initializer_range=options.encoder.init_scale,
        labels=labels,
        preprocessing=_preprocessing(inputs),
    )


def _preprocessing(inputs: Input) -> Preprocessing | None:
    if isinstance(inputs, FlowInput):
        return FlowPreprocessing.for_size(inputs.image_size)
    return TextPreprocessing() if isinstance(inputs, TextInput) and inputs.vocab_size == _BYTE_VOCABULARY else None


def _input(options: KrassermOptions) -> tuple[Input, int]:
    """The input and how many channels its tokens have."""
    encoder = options.encoder
    if isinstance(encoder, TextEncoderOptions):
        text = TextInput(encoder.vocab_size, encoder.max_seq_len, encoder.num_input_channels)
        return text, encoder.num_input_channels
    if isinstance(encoder, ImageEncoderOptions):
        height, width, channels = encoder.image_shape
        positions = FourierPositions(encoder.num_frequency_bands, (height, width))
        image = ImageInput("pixels", positions, image_size=(height, width), image_channels=channels)
        return image, channels + positions.channels
    assert isinstance(encoder, FlowEncoderOptions)
    if encoder.num_patch_input_channels != _FLOW_PATCH_CHANNELS:
        raise ValueError(
            f"num_patch_input_channels {encoder.num_patch_input_channels}: only {_FLOW_PATCH_CHANNELS} is supported"
        )
    positions = FourierPositions(encoder.num_frequency_bands, encoder.image_shape)
    hidden = encoder.num_patch_hidden_channels
    return FlowInput(positions, hidden, encoder.image_shape), hidden + positions.channels


def _encoder(options: KrassermOptions, input_channels: int) -> EncoderConfig:
    encoder = options.encoder
    # attention takes the channels of its query, but image and flow models ask for those of their input
    default = options.num_latent_channels if isinstance(encoder, TextEncoderOptions) else input_channels
    v_channels = encoder.num_cross_attention_v_channels
    if v_channels is None and isinstance(encoder, FlowEncoderOptions):
        v_channels = input_channels
    return EncoderConfig(
        num_latents=options.num_latents,
        d_latents=options.num_latent_channels,
        num_blocks=encoder.num_self_attention_blocks,
        num_self_attends_per_block=encoder.num_self_attention_layers_per_block,
        cross_attention=AttentionConfig(
            num_heads=encoder.num_cross_attention_heads,
            qk_channels=encoder.num_cross_attention_qk_channels or default,
            v_channels=v_channels,
            widening_factor=encoder.cross_attention_widening_factor,
        ),
        self_attention=AttentionConfig(
            num_heads=encoder.num_self_attention_heads,
            qk_channels=encoder.num_self_attention_qk_channels,
            v_channels=encoder.num_self_attention_v_channels,
            widening_factor=encoder.self_attention_widening_factor,
        ),
        num_cross_attentions=encoder.num_cross_attention_layers,
        cross_attention_sharing="all" if encoder.first_cross_attention_layer_shared else "from_second",
        block_sharing="all" if encoder.first_self_attention_block_shared else "from_second",
    )


def _decoder(options: KrassermOptions, input_channels: int) -> DecoderConfig:
    decoder = options.decoder
    if isinstance(decoder, ClassificationDecoderOptions):
        # their image classifier makes one query whatever this says
        if decoder.num_output_queries != 1 and isinstance(options.encoder, TextEncoderOptions):
            raise ValueError(f"num_output_queries {decoder.num_output_queries}: only 1 is supported")
        return _query_decoder(decoder, 1, decoder.num_output_query_channels, decoder.num_classes)
    if isinstance(decoder, FlowDecoderOptions):
        if decoder.rescale_factor != _FLOW_RESCALE:
            raise ValueError(f"rescale_factor {decoder.rescale_factor}: only {_FLOW_RESCALE} is supported")
        assert isinstance(options.encoder, FlowEncoderOptions)
        if decoder.image_shape != options.encoder.image_shape:
            raise ValueError(f"image_shape {decoder.image_shape} in decoder, {options.encoder.image_shape} in encoder")
        return _query_decoder(decoder, None, input_channels, 2)
    assert isinstance(decoder, TextDecoderOptions)
    assert isinstance(options.encoder, TextEncoderOptions)
    if decoder.vocab_size != options.encoder.vocab_size:
        raise ValueError(f"vocab_size {decoder.vocab_size} in decoder, {options.encoder.vocab_size} in encoder")
    if decoder.num_output_query_channels is None:
        return _query_decoder(decoder, decoder.max_seq_len, input_channels, None)
    return _query_decoder(decoder, decoder.max_seq_len, decoder.num_output_query_channels, decoder.vocab_size)


def _query_decoder(
    decoder: DecoderOptions, num_queries: int | None, query_channels: int, output_channels: int | None
) -> DecoderConfig:
    return DecoderConfig(
        num_queries=num_queries,
        query_channels=query_channels,
        cross_attention=AttentionConfig(
            num_heads=decoder.num_cross_attention_heads,
            qk_channels=decoder.num_cross_attention_qk_channels or query_channels,
            v_channels=decoder.num_cross_attention_v_channels,
            widening_factor=decoder.cross_attention_widening_factor,
            use_query_residual=decoder.cross_attention_residual,
        ),
        output_channels=output_channels,
    )
