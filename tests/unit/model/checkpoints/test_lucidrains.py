"""Parity with the real perceiver-pytorch, whose outputs tests/data/make_lucidrains.py wrote down.

Tolerance, relative L2 in float64: 1e-10; rounding (1.1e-16) over some hundreds of additions in a few layers leaves
1e-14, and anything above 1e-10 would be another formula.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import perceiver_deploy
from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.checkpoints.lucidrains import load_lucidrains
from perceiver_deploy.model.checkpoints.native import load_native, save_checkpoint
from perceiver_deploy.model.checkpoints.tensors import read_tensors
from tests.factories import relative_l2

FLOAT64 = 1e-10
DATA = Path(__file__).parents[3] / "data" / "lucidrains"
CASES = ("image", "image_tied", "image_tied_old", "audio", "video_old")
WHERE = Path("weights")


def read(case):
    return read_tensors(DATA / case), json.loads((DATA / case / "config.json").read_text())


def load(case):
    tensors, options = read(case)
    return load_lucidrains(tensors, DATA / case, options)


def our_inputs(case, arrays, index):
    data = torch.from_numpy(arrays[f"input_{index}"])
    if case.startswith("audio"):
        return {"audio": data.flatten(1)[..., None], "attention_mask": torch.from_numpy(arrays[f"mask_{index}"]).long()}
    name = "image" if case.startswith("video") else "pixel_values"
    return {name: data.movedim(-1, -3)}


def logits(model, inputs):
    inputs = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    with torch.no_grad():
        return model.double()(**inputs)["logits"]


@pytest.mark.parametrize("index", (0, 1))
@pytest.mark.parametrize("case", CASES)
def test_model_equals_perceiver_pytorch_in_float64(case, index):
    arrays = np.load(DATA / case / "expected.npz")
    found = logits(load(case), our_inputs(case, arrays, index))
    assert relative_l2(found, arrays[f"output_{index}"]) <= FLOAT64


def test_loaded_model_saved_in_our_form_is_the_same_model(tmp_path):
    model = load("image")
    save_checkpoint(model, tmp_path)
    again = load_native(tmp_path, json.loads((tmp_path / "config.json").read_text()))
    inputs = our_inputs("image", np.load(DATA / "image" / "expected.npz"), 0)
    assert torch.equal(logits(again, inputs), logits(model, inputs))


@pytest.mark.parametrize("kept", ("layers.1.", "layers.3."))
def test_tied_layers_may_be_stored_once(kept):
    tensors, options = read("image_tied")
    dropped = [f"layers.{index}." for index in (1, 2, 3) if f"layers.{index}." != kept]
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(dropped))}
    arrays = np.load(DATA / "image_tied" / "expected.npz")
    model = load_lucidrains(tensors, WHERE, options)
    assert relative_l2(logits(model, our_inputs("image_tied", arrays, 0)), arrays["output_0"]) <= FLOAT64


def test_tied_layers_that_differ_are_refused():
    tensors, options = read("image_tied")
    tensors["layers.3.cross_ff.norm.bias"] = tensors["layers.3.cross_ff.norm.bias"] + 1
    with pytest.raises(
        CheckpointError, match=r"weight_tie_layers is true, but layers\.3\.cross_ff\.norm\.bias differs"
    ):
        load_lucidrains(tensors, WHERE, options)


@pytest.mark.parametrize("case", ("image", "image_tied_old"))
def test_missing_unexpected_and_misshaped_tensors_are_named(case):
    tensors, options = read(case)
    removed = next(name for name in tensors if name.endswith("to_out.bias"))
    del tensors[removed]
    tensors["layers.0.extra"] = torch.zeros(1)
    misshaped = next(name for name in tensors if name.endswith("to_kv.weight"))
    tensors[misshaped] = tensors[misshaped][:-2]
    with pytest.raises(CheckpointError) as raised:
        load_lucidrains(tensors, WHERE, options)
    message = str(raised.value)
    assert f"1 missing ({removed})" in message
    assert "1 unexpected (layers.0.extra)" in message
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
        ({"heads": 3}, "heads: .* Known are num_freq_bands, depth"),
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
    with pytest.raises(CheckpointError, match=r"put a config\.json beside it .* num_freq_bands, depth and max_freq"):
        load_lucidrains(tensors, WHERE, None)
    del options["max_freq"]
    with pytest.raises(CheckpointError, match="max_freq: Field required"):
        load_lucidrains(tensors, WHERE, options)


def test_missing_arguments_take_the_published_defaults():
    tensors, options = read("image_tied_old")
    assert "latent_heads" not in options
    assert load_lucidrains(tensors, WHERE, options).config.encoder.self_attention.num_heads == 8


@pytest.mark.parametrize(
    ("name", "kind"),
    [("decoder_cross_attn.norm.weight", "PerceiverIO"), ("perceiver_io.latents", "PerceiverLM")],
)
def test_models_that_fit_no_task_are_refused_by_name(name, kind):
    with pytest.raises(CheckpointError, match=f"is a {kind} of perceiver-pytorch"):
        load_lucidrains({name: torch.zeros(1)}, WHERE, None)


@pytest.mark.parametrize("case", ("image", "audio"))
def test_exported_bundle_passes_its_gate(case, tmp_path):
    tensors, options = read(case)
    options["input_size"] = [6, 7] if case == "image" else [16]
    result = perceiver_deploy.export_model(load_lucidrains(tensors, WHERE, options), tmp_path / "bundle")
    assert result.verdicts
    assert all(verdict.passed for verdict in result.verdicts)
