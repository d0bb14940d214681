"""Parity with the real perceiver-pytorch, whose outputs tests/data/make_lucidrains.py wrote down.

Tolerance, relative L2 in float64: 1e-10; rounding (1.1e-16) over some hundreds of additions in a few layers leaves
1e-14, and anything above 1e-10 would be another formula.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import perceiver_deploy
from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.checkpoints.lucidrains.reader import load_lucidrains
from perceiver_deploy.model.checkpoints.own import load_native, save_checkpoint
from perceiver_deploy.model.checkpoints.tensors import read_tensors
from tests.helpers.factories import relative_l2

FLOAT64 = 1e-10
DATA = Path(__file__).parents[3] / "data" / "lucidrains"
CASES = ("image", "image_tied", "image_tied_old", "audio", "video_old", "io", "io_tied_old", "lm_tied", "lm_old")
WHERE = Path("weights")


def read(case):
    return read_tensors(DATA / case), json.loads((DATA / case / "config.json").read_text())


def load(case):
    tensors, options = read(case)
    return load_lucidrains(tensors, DATA / case, options)


def our_inputs(case, arrays, index):
    data = torch.from_numpy(arrays[f"input_{index}"])
    if f"mask_{index}" not in arrays:
        return {"image" if case.startswith("video") else "pixel_values": data.movedim(-1, -3)}
    mask = {"attention_mask": torch.from_numpy(arrays[f"mask_{index}"]).long()}
    if case.startswith("audio"):
        return {"audio": data.flatten(1)[..., None], **mask}
    if case.startswith("lm"):
        return {"input_ids": data, **mask}
    return {"tokens": data, "queries": torch.from_numpy(arrays[f"queries_{index}"]), **mask}


def output(model, inputs):
    inputs = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    with torch.no_grad():
        (found,) = model.double()(**inputs).values()
    return found


@pytest.mark.parametrize("index", (0, 1))
@pytest.mark.parametrize("case", CASES)
def test_model_equals_perceiver_pytorch_in_float64(case, index):
    arrays = np.load(DATA / case / "expected.npz")
    found = output(load(case), our_inputs(case, arrays, index))
    assert relative_l2(found, arrays[f"output_{index}"]) <= FLOAT64


@pytest.mark.parametrize("case", ("image", "io_tied_old", "lm_old"))
def test_loaded_model_saved_in_our_form_is_the_same_model(case, tmp_path):
    model = load(case)
    save_checkpoint(model, tmp_path)
    again = load_native(tmp_path, json.loads((tmp_path / "config.json").read_text()))
    inputs = our_inputs(case, np.load(DATA / case / "expected.npz"), 0)
    assert torch.equal(output(again, inputs), output(model, inputs))


@pytest.mark.parametrize(
    ("case", "dropped"), [("image_tied", (2, 3)), ("image_tied", (1, 2)), ("lm_tied", (1, 2)), ("io_tied_old", (0, 1))]
)
def test_tied_layers_may_be_stored_once(case, dropped):
    tensors, options = read(case)
    layers = re.compile(rf"\blayers\.[{''.join(map(str, dropped))}]\.")
    tensors = {name: tensor for name, tensor in tensors.items() if not layers.search(name)}
    arrays = np.load(DATA / case / "expected.npz")
    model = load_lucidrains(tensors, WHERE, options)
    assert relative_l2(output(model, our_inputs(case, arrays, 0)), arrays["output_0"]) <= FLOAT64


def test_tied_layers_that_differ_are_refused():
    tensors, options = read("image_tied")
    tensors["layers.3.cross_ff.norm.bias"] = tensors["layers.3.cross_ff.norm.bias"] + 1
    with pytest.raises(
        CheckpointError, match=r"weight_tie_layers is true, but layers\.3\.cross_ff\.norm\.bias differs"
    ):
        load_lucidrains(tensors, WHERE, options)


@pytest.mark.parametrize("case", ("image", "image_tied_old", "io", "lm_old"))
def test_missing_unexpected_and_misshaped_tensors_are_named(case):
    tensors, options = read(case)
    removed = next(name for name in tensors if name.endswith("to_out.bias"))
    del tensors[removed]
    tensors["extra"] = torch.zeros(1)
    misshaped = next(name for name in tensors if name.endswith("to_kv.weight"))
    tensors[misshaped] = tensors[misshaped][:-2]
    with pytest.raises(CheckpointError) as raised:
        load_lucidrains(tensors, WHERE, options)
    message = str(raised.value)
    assert f"1 missing ({removed})" in message
    assert "1 unexpected (extra)" in message
    assert f"2 of another shape ({misshaped}[keys] is" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_latents": 6}, r"num_latents is 6 .* latents is \[5, 8\]"),
        ({"latent_dim": 512}, r"latent_dim is 512 .* latents is \[5, 8\]"),
        ({"num_classes": 1000}, r"num_classes is 1000 .* to_logits\.2\.weight is \[4, 8\]"),
        ({"cross_dim_head": 64}, r"cross_heads \* cross_dim_head is 128 .*cross_attn\.fn\.to_q\.weight is \[6, 8\]"),
        (
            {"latent_heads": 8},
            r"latent_heads \* latent_dim_head is 16 .*self_attns\.0\.0\.fn\.to_q\.weight is \[6, 8\]",
        ),
        ({"num_freq_bands": 6}, r"\(2 \* num_freq_bands \+ 1\) is 29 .*to_kv\.weight is \[12, 17\]"),
        ({"input_channels": 4}, r"input_channels \+ .* is 18 .*to_kv\.weight is \[12, 17\]"),
        ({"depth": 3}, "depth 3 with weight_tie_layers False makes 3 .* holds 2"),
        ({"self_per_cross_attn": 1}, r"unexpected \(layers\.0\.self_attns\.1"),
        ({"self_per_cross_attn": 3}, r"missing \(layers\.0\.self_attns\.2"),
        ({"weight_tie_layers": True, "depth": 1}, "depth 1 with weight_tie_layers True makes 1 .* holds 2"),
        ({"heads": 3}, "heads: .* Known are depth, num_latents.*, num_freq_bands"),
        ({"depth": "2"}, "depth: Input should be a valid integer"),
        ({"depth": 0}, "depth: Input should be greater than 0"),
        ({"max_freq": float("nan")}, "max_freq: "),
        ({"fourier_encode_data": False}, "not supported: fourier_encode_data false"),
        ({"final_classifier_head": False}, "not supported: final_classifier_head false"),
        ({"inverted_cross_attn": [False, True]}, "not supported: inverted_cross_attn"),
        ({"attn_residual": True}, "not supported: attn_residual"),
        ({"input_axis": 4}, "not supported: input_axis 4: expected 1, 2 or 3"),
        ({"input_axis": 3, "input_channels": 1}, "input_channels 1 with input_axis 3: expected 3"),
        ({"input_size": [8]}, r"input_size \[8\]: expected one positive length for each of 2 axes"),
    ],
)
def test_arguments_that_cannot_be_honoured_are_refused(change, message):
    tensors, options = read("image")
    with pytest.raises(CheckpointError, match=message):
        load_lucidrains(tensors, WHERE, {**options, **change})


def test_state_dict_without_its_arguments_is_refused():
    tensors, options = read("image")
    with pytest.raises(CheckpointError, match=r"put a config\.json beside it .* depth, num_freq_bands, max_freq"):
        load_lucidrains(tensors, WHERE, None)
    del options["max_freq"]
    with pytest.raises(CheckpointError, match="max_freq: Field required"):
        load_lucidrains(tensors, WHERE, options)


def test_missing_arguments_take_the_published_defaults():
    tensors, options = read("image_tied_old")
    assert "latent_heads" not in options
    assert load_lucidrains(tensors, WHERE, options).config.encoder.self_attention.num_heads == 8


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("io", {"depth": 3}, "depth 3 with weight_tie_layers False makes 3 .* holds 2"),
        ("io_tied_old", {"depth": 4}, "depth 4 with weight_tie_layers True makes 1 .* holds 3"),
        ("io_tied_old", {"weight_tie_layers": False, "depth": 4}, "makes 4 .* holds 3"),
        ("io", {"weight_tie_layers": True}, r"layers\.1\..* differs from other layers' weights"),
        ("io", {"dim": 5}, r"to_kv\.weight\[keys\] is \[6, 6\], expected \[6, 5\]"),
        ("io", {"queries_dim": 8}, r"decoder_cross_attn\.norm\.weight is \[7\], expected \[8\]"),
        ("io", {"logits_dim": None}, r"unexpected \(to_logits\.bias, to_logits\.weight\)"),
        ("io", {"decoder_ff": False}, r"unexpected \(decoder_ff\.fn\.net\.0\.bias"),
        ("io_tied_old", {"decoder_ff": True}, r"missing \(decoder_ff\.norm\.weight"),
        ("io", {"num_classes": 3}, "arguments of a PerceiverIO .* num_classes: .* Known are depth.*, queries_dim"),
        ("io", {"attn_residual": True}, "not supported: attn_residual"),
        ("io", {"inverted_cross_attn": True}, "not supported: inverted_cross_attn"),
        ("lm_old", {"num_tokens": 21}, r"token_emb\.weight is \[20, 6\], expected \[21, 6\]"),
        ("lm_old", {"max_seq_len": 13}, r"pos_emb\.weight is \[12, 6\], expected \[13, 6\]"),
        ("lm_old", {"decoder_ff": False}, r"unexpected \(perceiver_io\.decoder_ff"),
        ("lm_old", {"queries_dim": 6}, "arguments of a PerceiverLM .* queries_dim: "),
    ],
)
def test_arguments_of_perceiver_io_that_do_not_fit_are_refused(case, change, message):
    tensors, options = read(case)
    with pytest.raises(CheckpointError, match=message):
        load_lucidrains(tensors, WHERE, {**options, **change})


@pytest.mark.parametrize(
    ("case", "needed"), [("io", "depth, dim, queries_dim"), ("lm_old", "dim, num_tokens, max_seq")]
)
def test_perceiver_io_without_its_arguments_is_refused_with_those_it_needs(case, needed):
    with pytest.raises(CheckpointError, match=f"its Perceiver(IO|LM) was built with, at least .*{needed}"):
        load_lucidrains(read(case)[0], WHERE, None)


@pytest.mark.parametrize("case", ("image", "audio", "io_tied_old", "lm_tied"))
def test_exported_bundle_passes_its_gate(case, tmp_path):
    tensors, options = read(case)
    if case in ("image", "audio"):
        options["input_size"] = [6, 7] if case == "image" else [16]
    result = perceiver_deploy.export_model(load_lucidrains(tensors, WHERE, options), tmp_path / "bundle")
    assert result.verdicts
    assert all(verdict.passed for verdict in result.verdicts)
