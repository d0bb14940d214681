"""Names that DeepMind's Haiku code gave to the parameters of the published models."""

from __future__ import annotations

import re

POSITIONS = "pos_embs"
LEARNED = "image_preprocessor/~_build_network_inputs"
BATCH_NORM = "image_preprocessor/~/conv2_d_downsample/~/batchnorm"
CLASSIFIER = "classification_decoder/~/basic_decoder"
_LAYER_NAMES = {
    "query_norm": "layer_norm",
    "key_value_norm": "layer_norm_1",
    "query": "attention/linear",
    "key": "attention/linear_1",
    "value": "attention/linear_2",
    "output": "attention/linear_3",
    "mlp.0": "mlp/linear",
    "mlp.2": "mlp/linear_1",
}
_NAMES = {
    "output_bias": "embedding_decoder/bias",
    "input_adapter.embeddings.weight": "embed/embeddings",
    "input_adapter.position_embeddings.weight": f"trainable_position_encoding/{POSITIONS}",
    "input_adapter.positions.table": f"{LEARNED}/trainable_position_encoding/{POSITIONS}",
    "input_adapter.stem.batch_norm.weight": f"{BATCH_NORM}/scale",
    "input_adapter.stem.batch_norm.bias": f"{BATCH_NORM}/offset",
    "input_adapter.stem.batch_norm.running_mean": f"{BATCH_NORM}/~/mean_ema/average",
    "input_adapter.stem.batch_norm.running_var": f"{BATCH_NORM}/~/var_ema/average",
    "input_adapter.stem.batch_norm.num_batches_tracked": f"{BATCH_NORM}/~/mean_ema/counter",
    "output_queries.label": f"{CLASSIFIER}/~/trainable_position_encoding/{POSITIONS}",
}
_MODULES = {
    "input_adapter.stem.conv": "image_preprocessor/~/conv2_d_downsample/~/conv",
    "input_adapter.stem": "image_preprocessor/~/conv2_d",
    "input_adapter.positions.projection": f"{LEARNED}/position_encoding_projector/linear",
    "input_adapter.projection": "image_preprocessor/patches_linear",
    "outputs.audio": "audio_postprocessor/linear",
    "outputs.image": "projection_postprocessor/linear",
    "outputs.label": "classification_postprocessor/linear",
}


def haiku_name(name: str, encoder: str, decoder: str) -> str:
    """Haiku's name of one of our tensors, in a model whose encoder and decoder have these names."""
    if name in _NAMES:
        return _NAMES[name]
    if name in ("encoder.latents", "decoder.queries"):
        module = encoder if name == "encoder.latents" else decoder
        return f"{module}/~/trainable_position_encoding/{POSITIONS}"
    if match := re.fullmatch(r"(input_adapter|output_queries)\.(padding|mask)\.(\w+)", name):
        module = "multimodal_preprocessor" if match[1] == "input_adapter" else "multimodal_decoder/~decoder_query"
        return f"{module}/{match[3]}_{'padding' if match[2] == 'padding' else 'mask_token'}/{POSITIONS}"
    module, leaf = name.rsplit(".", 1)
    modules = {**_MODULES, "decoder.projection": f"{decoder}/output"}
    if module in modules:
        return f"{modules[module]}/{'w' if leaf == 'weight' else 'b'}"
    return _layer_tensor_name(module, leaf, encoder, decoder)


def _layer_tensor_name(module: str, leaf: str, encoder: str, decoder: str) -> str:
    match = re.fullmatch(r"(encoder|decoder)\.(cross_attention|self_attends\.(\d+))\.(.+)", module)
    assert match is not None, module
    layer = "cross_attention"
    if match[3] is not None:
        layer = "self_attention" if match[3] == "0" else f"self_attention_{match[3]}"
    place = f"{encoder}/~" if match[1] == "encoder" else decoder
    if match[4] == "mlp_norm":
        inner = "layer_norm_2" if layer == "cross_attention" else "layer_norm_1"
    else:
        inner = _LAYER_NAMES[match[4]]
    names = {"weight": "scale", "bias": "offset"} if "norm" in inner else {"weight": "w", "bias": "b"}
    return f"{place}/{layer}/{inner}/{names[leaf]}"
