"""Parity with the installed transformers on random models: small ones, and all five at their published size.

Tolerances are relative L2 over all logits of one input. float64: 1e-10; rounding (1.1e-16) over hundreds of
additions in some fifty layers was measured to leave 1e-13, and anything above 1e-10 would be another formula.
float32: 1e-5; each of the two implementations was measured to be up to 5e-6 away from float64.
"""

import json
import math
import sys

import pytest
import torch
from transformers import PerceiverConfig
from transformers.models.perceiver import modeling_perceiver

from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.checkpoints.huggingface.reader import load_huggingface
from perceiver_deploy.model.checkpoints.load import load_checkpoint
from tests.helpers.factories import perturb

FLOAT64, FLOAT32 = 1e-10, 1e-5
MASKED_LM = "PerceiverForMaskedLM"
SEQUENCE = "PerceiverForSequenceClassification"
FOURIER = "PerceiverForImageClassificationFourier"
CONV = "PerceiverForImageClassificationConvProcessing"
LEARNED = "PerceiverForImageClassificationLearned"
CLASSES = (MASKED_LM, SEQUENCE, FOURIER, CONV, LEARNED)

SMALL = {
    "num_latents": 8,
    "d_latents": 32,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
    "d_model": 24,
    "max_position_embeddings": 64,
    "image_size": 12,
}
VARIATIONS = {
    "defaults": {},
    "qk and v channels": {"qk_channels": 16, "v_channels": 32, "num_cross_attention_heads": 2},
    "qk channels": {"qk_channels": 32},
    "shape of the queries": {"cross_attention_shape_for_attention": "q", "num_cross_attention_heads": 2},
    "shape of the keys": {"cross_attention_shape_for_attention": "kv"},
    "wide": {"self_attention_widening_factor": 2, "cross_attention_widening_factor": 2},
    "gelu_new": {"hidden_act": "gelu_new"},
    "relu": {"hidden_act": "relu"},
    "no query residual": {"use_query_residual": False},
}
TEXT_SHAPES = ((1, 64), (3, 64), (3, 17), (1, 1), (3, 1))
SMALL_SHAPES = {
    MASKED_LM: TEXT_SHAPES,
    SEQUENCE: TEXT_SHAPES,
    FOURIER: ((1, 32, 32), (3, 17, 9), (1, 1, 1), (3, 8, 1), (1, 5, 40), (1, 64, 48)),
    CONV: ((1, 32, 32), (3, 37, 50), (1, 5, 5), (3, 6, 31)),
    LEARNED: ((1, 12, 12), (3, 12, 12)),
}


def hugging_face(name, directory, **config):
    """A perturbed random model of transformers, saved in `directory`."""
    torch.manual_seed(0)
    model = getattr(modeling_perceiver, name)(PerceiverConfig(**config)).eval()
    perturb(model)
    model.save_pretrained(directory)
    return model


def inputs_of(name, shape, seed=0):
    """Random inputs; texts padded in the last row, with every second token masked in the row before, which a batch
    of three precedes with a fully masked row."""
    generator = torch.Generator().manual_seed(seed)
    if name not in (MASKED_LM, SEQUENCE):
        batch, height, width = shape
        return {"pixel_values": torch.randn(batch, 3, height, width, generator=generator)}
    mask = torch.ones(shape, dtype=torch.long)
    mask[-1, (shape[1] + 1) // 2 :] = 0
    if shape[0] == 3:
        mask[0] = 0
        mask[1, 1::2] = 0
    return {"input_ids": torch.randint(0, 262, shape, generator=generator), "attention_mask": mask}


def logits_of_both(theirs, ours, inputs, dtype):
    inputs = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    with torch.no_grad():
        found, expected = ours.to(dtype)(**inputs)["logits"], theirs.to(dtype)(**inputs).logits
    if expected.ndim == 3:  # theirs decodes all positions of the table, ours those of the input
        assert found.shape[1] == inputs["input_ids"].shape[1]
        expected = expected[:, : found.shape[1]]
    assert found.dtype == dtype
    assert found.shape == expected.shape
    return found.double(), expected.double()


def relative_l2(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def assert_parity(theirs, ours, inputs):
    """Parity in both dtypes; returns both figures."""
    figures = []
    for dtype, tolerance in ((torch.float64, FLOAT64), (torch.float32, FLOAT32)):
        figure = relative_l2(*logits_of_both(theirs, ours, inputs, dtype))
        assert figure <= tolerance, (dtype, {key: list(value.shape) for key, value in inputs.items()})
        figures.append(figure)
    return figures


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("name", CLASSES)
def test_small_model_equals_transformers_at_every_shape(name, variation, tmp_path):
    shapes = SMALL_SHAPES[name] if variation == "defaults" else SMALL_SHAPES[name][1:3]
    theirs = hugging_face(name, tmp_path, **{**SMALL, **VARIATIONS[variation]})
    ours = load_checkpoint(tmp_path)
    for shape in shapes:
        assert_parity(theirs, ours, inputs_of(name, shape))


@pytest.mark.parametrize("name", CLASSES)
def test_small_models_depend_on_their_inputs_far_beyond_the_tolerances(name, tmp_path):
    """Parity of models whose outputs hardly depend on their inputs, as of fresh ones, would prove nothing."""
    hugging_face(name, tmp_path, **SMALL)
    ours, shape = load_checkpoint(tmp_path), SMALL_SHAPES[name][1]
    with torch.no_grad():
        one, other = (ours(**inputs_of(name, shape, seed))["logits"] for seed in (0, 1))
    assert relative_l2(one[-1], other[-1]) > 100 * FLOAT32


@pytest.mark.parametrize("name", (MASKED_LM, SEQUENCE))
def test_a_fully_masked_row_is_the_mean_of_the_values_as_in_transformers(name, tmp_path):
    theirs = hugging_face(name, tmp_path, **SMALL)
    ours = load_checkpoint(tmp_path)
    inputs = inputs_of(name, (2, 9))
    inputs["attention_mask"][0] = 0
    assert_parity(theirs, ours, inputs)
    assert not ours.encoder.cross_attention.zero_fully_masked_rows


def test_every_tensor_of_the_file_is_used_and_every_tensor_of_the_model_is_read(tmp_path):
    for name in CLASSES:
        theirs = hugging_face(name, tmp_path / name, **SMALL)
        ours = load_checkpoint(tmp_path / name)
        count = sum(tensor.numel() for tensor in theirs.state_dict().values())
        assert sum(tensor.numel() for tensor in ours.state_dict().values()) == count


def test_pytorch_bin_gives_the_same_model_as_safetensors(tmp_path):
    for name in (MASKED_LM, CONV):
        theirs = hugging_face(name, tmp_path / name, **SMALL)
        expected = load_checkpoint(tmp_path / name).state_dict()
        (tmp_path / name / "model.safetensors").unlink()
        torch.save(theirs.state_dict(), tmp_path / name / "pytorch_model.bin")
        found = load_checkpoint(tmp_path / name).state_dict()
        assert found.keys() == expected.keys()
        assert [key for key in found if not torch.equal(found[key], expected[key])] == []


def test_half_precision_weights_are_loaded_as_float32(tmp_path):
    theirs = hugging_face(FOURIER, tmp_path / "single", **SMALL)
    theirs.half().save_pretrained(tmp_path / "half")
    ours = load_checkpoint(tmp_path / "half")
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert_parity(theirs, ours, inputs_of(FOURIER, (1, 8, 8)))


@pytest.mark.parametrize("name", CLASSES)
def test_loaded_models_are_in_eval_mode_and_trainable(name, tmp_path):
    hugging_face(name, tmp_path, **SMALL)
    ours = load_checkpoint(tmp_path)
    assert not ours.training
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in ours.parameters())


def config_document(directory):
    return json.loads((directory / "config.json").read_text())


@pytest.mark.parametrize("name", (SEQUENCE, FOURIER))
def test_labels_keep_the_order_of_their_numbers_whatever_the_order_in_the_file(name, tmp_path):
    labels = {index: f"class {index}" for index in range(12)}
    hugging_face(name, tmp_path, **SMALL, id2label=labels)
    document = config_document(tmp_path)
    assert len(document["id2label"]) == 12
    document["id2label"] = dict(sorted(document["id2label"].items()))  # 0, 1, 10, 11, 2, ...
    assert list(document["id2label"].values()) != list(labels.values())
    assert load_huggingface(tmp_path, document).config.labels == tuple(labels.values())


def test_labels_are_the_two_of_transformers_when_the_file_has_none(tmp_path):
    hugging_face(SEQUENCE, tmp_path, **SMALL)
    document = config_document(tmp_path)
    document.pop("id2label", None)
    assert load_huggingface(tmp_path, document).config.labels == ("LABEL_0", "LABEL_1")


def test_a_config_that_leaves_out_defaults_gets_those_of_transformers(tmp_path):
    hugging_face(MASKED_LM, tmp_path, **SMALL)
    document = config_document(tmp_path)
    defaults = PerceiverConfig().to_dict()
    kept = {
        key: value
        for key, value in document.items()
        if key in ("architectures", "model_type") or defaults.get(key, "absent") != value
    }
    assert len(kept) < len(document)
    assert load_huggingface(tmp_path, kept).config == load_huggingface(tmp_path, document).config


# Preprocessing


def preprocessing(directory, preprocessor=None):
    hugging_face(FOURIER, directory, **SMALL)
    if preprocessor is not None:
        (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return load_checkpoint(directory).config.preprocessing


def test_preprocessing_is_that_of_the_published_checkpoints_when_the_file_is_absent(tmp_path):
    found = preprocessing(tmp_path)
    assert found.size == (224, 224)
    assert found.crop_fraction == 224 / 256
    assert found.mean == (0.485, 0.456, 0.406)
    assert found.std == (0.229, 0.224, 0.225)


def test_preprocessing_reads_sizes_given_as_numbers(tmp_path):
    found = preprocessing(tmp_path, {"size": 192, "crop_size": 256, "image_mean": [0.5, 0.4, 0.3]})
    assert found.size == (192, 192)
    assert found.crop_fraction == 0.75
    assert found.mean == (0.5, 0.4, 0.3)
    assert found.std == (0.229, 0.224, 0.225)


def test_preprocessing_reads_sizes_given_as_height_and_width(tmp_path):
    size, crop = {"height": 64, "width": 48}, {"height": 80, "width": 60}
    found = preprocessing(tmp_path, {"size": size, "crop_size": crop, "image_std": [1, 2, 3]})
    assert found.size == (64, 48)
    assert found.crop_fraction == 0.8
    assert found.std == (1, 2, 3)


def test_preprocessing_does_not_crop_or_resize_where_the_file_says_so(tmp_path):
    found = preprocessing(tmp_path, {"size": 64, "crop_size": 80, "do_center_crop": False, "do_resize": False})
    assert found.crop_fraction is None
    assert found.size is None


def test_preprocessing_does_not_normalise_where_the_file_says_so(tmp_path):
    found = preprocessing(tmp_path, {"do_normalize": False})
    assert found.mean == (0, 0, 0)
    assert found.std == (1, 1, 1)


def test_preprocessing_refuses_a_rescale_factor_that_it_cannot_honour(tmp_path):
    with pytest.raises(CheckpointError, match="rescale_factor"):
        preprocessing(tmp_path, {"rescale_factor": 1 / 127.5})


@pytest.mark.parametrize("content", ["{", '{"size": {"shortest_edge": 224}}', '{"image_mean": [1]}'])
def test_a_preprocessor_config_that_cannot_be_used_is_named(tmp_path, content):
    hugging_face(FOURIER, tmp_path, **SMALL)
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        load_checkpoint(tmp_path)


# Published sizes

LANGUAGE = {
    "num_latents": 256,
    "d_latents": 1280,
    "d_model": 768,
    "num_blocks": 1,
    "num_self_attends_per_block": 26,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 8,
    "qk_channels": 256,
    "v_channels": 1280,
    "vocab_size": 262,
    "max_position_embeddings": 2048,
}
VISION = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 1,
    "image_size": 224,
    "num_labels": 1000,
}
# class: configuration, published number of parameters (None: only its encoder was published), shape
FULL_SIZE = {
    MASKED_LM: (LANGUAGE, 201_108_230, (3, 2048)),
    SEQUENCE: (LANGUAGE, None, (3, 2048)),
    FOURIER: (VISION, 48_440_627, (1, 224, 224)),
    CONV: (VISION, 48_646_522, (1, 224, 224)),
    LEARNED: (VISION, 62_255_848, (1, 224, 224)),
}


@pytest.mark.full
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.usefixtures("all_cores")
def test_full_size_model_equals_transformers(name, tmp_path, capsys):
    config, parameters, shape = FULL_SIZE[name]
    theirs = hugging_face(name, tmp_path, **config)
    ours = load_checkpoint(tmp_path)
    if parameters is not None:
        assert sum(math.prod(parameter.shape) for parameter in ours.parameters()) == parameters
    inputs = inputs_of(name, shape)
    with torch.no_grad():
        one, other = (ours(**inputs_of(name, shape, seed))["logits"] for seed in (0, 1))
    figures = {
        str(dtype): relative_l2(*logits_of_both(theirs, ours, inputs, dtype))
        for dtype in (torch.float64, torch.float32)
    }
    with capsys.disabled():
        sys.stdout.write(f"\n{name} {list(shape)}: relative L2 against transformers {figures}\n")
    assert relative_l2(one[-1], other[-1]) > 100 * FLOAT32  # the outputs depend on the inputs
    assert figures["torch.float64"] <= FLOAT64
    assert figures["torch.float32"] <= FLOAT32
