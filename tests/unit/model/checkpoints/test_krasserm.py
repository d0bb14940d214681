"""Parity with the real perceiver-io 0.11.0, whose outputs tests/data/make_krasserm.py wrote down.

Tolerance, relative L2 in float64: 1e-10; rounding (1.1e-16) over some hundreds of additions in a few layers leaves
1e-14, and anything above 1e-10 would be another formula.
"""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import perceiver_deploy
from perceiver_deploy.bundle.preprocessing import TextPreprocessing
from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.checkpoints.krasserm.reader import load_krasserm
from perceiver_deploy.model.checkpoints.load import load_checkpoint
from perceiver_deploy.model.checkpoints.tensors import read_tensors
from tests.helpers.factories import relative_l2

FLOAT64 = 1e-10
DATA = Path(__file__).parents[3] / "data" / "krasserm"
TEXT = ("masked_lm", "untied_masked_lm", "text_classifier")
SIZED = ("image_classifier", "optical_flow")
SECOND_SIZE = {"image_classifier": [7, 3], "optical_flow": [3, 6]}
WHERE = Path("weights")
POSITIONS = "backend_model.0.input_adapter.position_encoding.position_encoding"


def read(case):
    return read_tensors(DATA / case), json.loads((DATA / case / "config.json").read_text())


def with_size(case, tensors, document):
    """The checkpoint of the second size: of its tensors only the positions depend on it."""
    document = copy.deepcopy(document)
    config = document["model_config"]
    config["encoder"]["image_shape"][:2] = SECOND_SIZE[case]
    if case == "optical_flow":
        config["decoder"]["image_shape"] = SECOND_SIZE[case]
    return {name: tensor for name, tensor in tensors.items() if name != POSITIONS}, document


def lightning(tensors, document):
    """The form of a Lightning module: other prefix, no model_type, no `model_config` around the parameters."""
    tensors = {name.replace("backend_model.", "model."): tensor for name, tensor in tensors.items()}
    return tensors, {**document["model_config"], "params": None}


def load(case, index=0, form=lambda *checkpoint: checkpoint):
    checkpoint = read(case)
    if index and case in SIZED:
        checkpoint = with_size(case, *checkpoint)
    tensors, document = form(*checkpoint)
    return load_krasserm(tensors, WHERE, document)


def outputs(case, model, arrays, index):
    data = torch.from_numpy(arrays[f"x_{index}"])
    if case in TEXT:
        inputs = {"input_ids": data, "attention_mask": torch.from_numpy(~arrays[f"pad_mask_{index}"]).long()}
    elif case == "image_classifier":
        inputs = {"pixel_values": data.double().movedim(-1, 1)}
    else:
        inputs = {"patches": data.double()}
    with torch.no_grad():
        (output,) = model.double()(**inputs).values()
    return output


@pytest.mark.parametrize("form", (lambda *checkpoint: checkpoint, lightning), ids=("huggingface", "lightning"))
@pytest.mark.parametrize("index", (0, 1))
@pytest.mark.parametrize("case", TEXT + SIZED)
def test_model_equals_perceiver_io_in_float64(case, index, form):
    arrays = np.load(DATA / case / "expected.npz")
    found = outputs(case, load(case, index, form), arrays, index)
    assert relative_l2(found, arrays[f"output_{index}"]) <= FLOAT64


@pytest.mark.parametrize("case", ("untied_masked_lm", "text_classifier", "image_classifier"))
def test_file_of_lightning_is_found_out_and_gives_the_same_model(case):
    arrays = np.load(DATA / case / "expected.npz")
    model = load_checkpoint(DATA / case / "lightning.ckpt")
    assert relative_l2(outputs(case, model, arrays, 0), arrays["output_0"]) <= FLOAT64


class Foreign:
    """A class of another project."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}, "hyper_parameters": {"encoder": Foreign()}}, "holds more than tensors, so it was not"),
        ({"model": {}, "epoch": 3}, r"not a file of a Lightning module of perceiver-io: .* found 'model', 'epoch'\."),
        ([1], "found something else"),
        ({"state_dict": {"w": 3}, "hyper_parameters": {}}, "found 'state_dict', 'hyper_parameters'"),
        ({"state_dict": {"w": torch.zeros(1)}, "hyper_parameters": {}}, "holds no tensors of a text, image or optical"),
    ],
)
def test_file_of_another_project_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "other.ckpt")


@pytest.mark.parametrize("kept", (0, 100, 0.5, 0.99))
def test_truncated_file_of_lightning_is_refused(kept, tmp_path):
    content = (DATA / "image_classifier" / "lightning.ckpt").read_bytes()
    (tmp_path / "a.ckpt").write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(CheckpointError, match=r"a\.ckpt (cannot be read|is a pickle that holds more)"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("case", TEXT + SIZED)
def test_missing_unexpected_and_misshaped_tensors_are_named(case):
    tensors, document = read(case)
    del tensors["backend_model.0.self_attn_1.0.0.module.attention.k_proj.bias"]
    tensors["backend_model.2.extra"] = torch.zeros(1)
    tensors["backend_model.0.latent_provider._query"] = torch.zeros(6, 8)
    with pytest.raises(CheckpointError) as caught:
        load_krasserm(tensors, WHERE, document)
    message = str(caught.value)
    assert "1 missing (backend_model.0.self_attn_1.0.0.module.attention.k_proj.bias)" in message
    assert "1 unexpected (backend_model.2.extra)" in message
    assert "backend_model.0.latent_provider._query is [6, 8], expected [5, 8]" in message


@pytest.mark.parametrize("case", SIZED)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda positions: positions[:-1], r"position_encoding is \[\d+, \d+\], expected \["),
        (lambda positions: positions.flip(-1), "position_encoding does not hold the Fourier positions"),
        (lambda positions: positions.half(), None),
    ],
    ids=("misshaped", "other", "float16"),
)
def test_stored_positions_must_be_those_of_the_configuration(case, change, message):
    tensors, document = read(case)
    tensors[POSITIONS] = change(tensors[POSITIONS])
    if message is None:
        load_krasserm(tensors, WHERE, document)
        return
    with pytest.raises(CheckpointError, match=message):
        load_krasserm(tensors, WHERE, document)


@pytest.mark.parametrize(
    ("case", "section", "change", "message"),
    [
        ("masked_lm", "encoder", {"num_cross_attention_qk_channels": 8}, r"cross_attn_1\.0\.module\.attention\.q_proj"),
        ("masked_lm", "encoder", {"num_self_attention_blocks": 2}, "num_cross_attentions 3 for num_blocks 2"),
        ("masked_lm", "encoder", {"first_self_attention_block_shared": True}, r"unexpected .*self_attn_n"),
        ("masked_lm", "encoder", {"first_cross_attention_layer_shared": True}, r"unexpected .*cross_attn_n"),
        ("masked_lm", "encoder", {"num_self_attention_heads": 3}, "qk_channels 8 is not divisible by num_heads 3"),
        ("masked_lm", "encoder", {"num_heads": 3}, "encoder.num_heads: Unexpected keyword argument"),
        ("masked_lm", "encoder", {"max_seq_len": "12"}, "encoder.max_seq_len: Input should be a valid integer"),
        ("masked_lm", "encoder", {"max_seq_len": 13}, "decoder.num_queries 12 is less than input.max_length 13"),
        ("masked_lm", "decoder", {"vocab_size": 30}, "vocab_size 30 in decoder, 262 in encoder"),
        ("masked_lm", "decoder", {"num_output_query_channels": 6}, r"missing \(.*1\.output_adapter\.linear\.weight"),
        (
            "untied_masked_lm",
            "decoder",
            {"num_output_query_channels": 6},
            r"output_query_provider\._query is \[12, 9\]",
        ),
        ("masked_lm", "decoder", {"cross_attention_residual": True}, r"missing .*cross_attn\.0\.module\.q_norm"),
        ("text_classifier", "decoder", {"num_output_queries": 2}, "num_output_queries 2: only 1 is supported"),
        ("image_classifier", "encoder", {"image_shape": [6, 5]}, r"encoder\.image_shape\.2: Field required"),
        ("optical_flow", "encoder", {"num_patch_input_channels": 3}, "num_patch_input_channels 3: only 27"),
        ("optical_flow", "decoder", {"rescale_factor": 1.0}, r"rescale_factor 1\.0: only 100\.0 is supported"),
        ("optical_flow", "decoder", {"image_shape": [5, 5]}, r"image_shape \(5, 5\) in decoder, \(5, 4\) in encoder"),
    ],
)
def test_values_that_cannot_be_honoured_are_refused(case, section, change, message):
    tensors, document = read(case)
    document["model_config"][section].update(change)
    with pytest.raises(CheckpointError, match=message):
        load_krasserm(tensors, WHERE, document)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"model_type": "perceiver-ar-causal-language-model"}, "these are supported: perceiver-io-masked-language"),
        ({"model_config": 3}, "model_config that is not a JSON object"),
        ({"encoder": {}}, "lacks decoder"),
        ({"encoder": {}, "decoder": {}, "num_latent_channels": 8}, "lacks num_latents"),
        ({"encoder": {}, "decoder": [], "num_latents": 5}, "decoder: "),
        ({"encoder": {}, "decoder": {}, "num_latents": 0, "num_latent_channels": 8}, "cannot be used: num_latents 0, "),
    ],
)
def test_documents_of_other_models_are_refused(document, message):
    with pytest.raises(CheckpointError, match=message):
        load_krasserm(read("masked_lm")[0], WHERE, document)


def test_tensors_of_another_project_are_refused():
    with pytest.raises(CheckpointError, match="holds no tensors of a text, image or optical flow model"):
        load_krasserm({"weight": torch.zeros(1)}, WHERE, {"encoder": {}, "decoder": {}})


def test_labels_and_byte_preprocessing_are_taken_over():
    tensors, document = read("text_classifier")
    document["id2label"] = {"2": "c", "0": "a", "1": "b"}
    assert load_krasserm(tensors, WHERE, document).config.labels == ("a", "b", "c")
    assert load("text_classifier").config.preprocessing is None  # 50 tokens are not bytes
    assert load("masked_lm").config.preprocessing == TextPreprocessing()
    document["id2label"] = {"0": "a"}
    with pytest.raises(CheckpointError, match="1 labels for 3 outputs"):
        load_krasserm(tensors, WHERE, document)


@pytest.mark.parametrize("case", ("masked_lm", "untied_masked_lm", "optical_flow"))
def test_exported_bundle_passes_its_gate(case, tmp_path):
    result = perceiver_deploy.export_model(load(case), tmp_path / "bundle")
    assert result.verdicts
    assert all(verdict.passed for verdict in result.verdicts)
