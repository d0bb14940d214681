import json
import pickle
import shutil
import struct
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from perceiver_deploy.errors import CheckpointError, MissingError
from perceiver_deploy.model.checkpoints.load import find_checkpoint, load_checkpoint
from perceiver_deploy.model.checkpoints.own import save_checkpoint
from tests.helpers.factories import KINDS, small_model, some_inputs, tensors


@pytest.fixture
def checkpoint(tmp_path):
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    save_checkpoint(small_model("masked_lm"), directory)
    return directory


def edit_config(directory, change):
    path = directory / "config.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def edit_tensors(directory, change):
    path = directory / "model.safetensors"
    found = load_file(path)
    change(found)
    path.unlink()
    save_file(found, path)


def refusal(directory, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(directory)
    assert caught.value.exit_code == 1
    return str(caught.value)


# Native checkpoints


@pytest.mark.parametrize("kind", KINDS)
def test_native_round_trip_is_bit_equal(kind, tmp_path):
    model = small_model(kind)
    save_checkpoint(model, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(loaded.state_dict()[name], tensor), name
    inputs = tensors(some_inputs(kind))
    with torch.no_grad():
        assert torch.equal(loaded(**inputs)["logits"], model(**inputs)["logits"])


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_checkpoint(small_model("conv"), tmp_path / name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_loaded_model_does_not_depend_on_its_file_any_more(checkpoint):
    model = load_checkpoint(checkpoint)
    expected = small_model("masked_lm").state_dict()
    shutil.rmtree(checkpoint)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


# config.json


def test_a_missing_config_is_named(checkpoint):
    (checkpoint / "config.json").unlink()
    refusal(checkpoint, r"is not a checkpoint of a Perceiver: neither a config\.json")


@pytest.mark.parametrize(
    "content", [b"", b"{'format'", b"\xff\xfe", b"[" * 100_000], ids=["empty", "no JSON", "not UTF-8", "nested"]
)
def test_a_config_that_is_not_json_is_refused(checkpoint, content):
    (checkpoint / "config.json").write_bytes(content)
    refusal(checkpoint, r"config\.json cannot be read as JSON")


def test_a_config_that_is_no_object_is_refused(checkpoint):
    (checkpoint / "config.json").write_text("[]")
    refusal(checkpoint, r"config\.json is not a JSON object")


def test_another_model_type_is_named(checkpoint):
    (checkpoint / "config.json").write_text('{"model_type": "bert"}')
    refusal(checkpoint, "model_type is 'bert', expected 'perceiver'")


@pytest.mark.parametrize("architectures", [["PerceiverModel"], [["nested"]], [], None])
def test_an_unknown_architecture_is_answered_with_the_known_ones(checkpoint, architectures):
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "perceiver", "architectures": architectures}))
    message = refusal(checkpoint, "expected one of")
    assert repr(architectures[0] if architectures else None) in message
    assert "PerceiverForMaskedLM" in message


def test_an_unknown_field_is_named(checkpoint):
    edit_config(checkpoint, lambda document: document["encoder"].update(num_latent=8))
    refusal(checkpoint, r"encoder\.num_latent")


def test_a_missing_field_is_named(checkpoint):
    edit_config(checkpoint, lambda document: document["encoder"].pop("num_latents"))
    refusal(checkpoint, r"encoder\.num_latents")


def test_a_newer_format_version_is_refused(checkpoint):
    edit_config(checkpoint, lambda document: document.update(format_version=2))
    refusal(checkpoint, r"format_version 2; this perceiver-deploy reads 1\. Upgrade")


@pytest.mark.parametrize("heads", [3, 0])
def test_heads_that_do_not_divide_the_channels_are_a_checkpoint_error(checkpoint, heads):
    edit_config(checkpoint, lambda document: document["encoder"]["self_attention"].update(num_heads=heads))
    refusal(checkpoint, r"config\.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_self_attention_heads", 3),
        ("num_self_attention_heads", 0),
        ("num_latents", "many"),
        ("num_latents", -1),
        ("d_latents", None),
        ("hidden_act", "swish"),
        ("cross_attention_shape_for_attention", "v"),
        ("id2label", {"0": "a", "2": "c"}),
        ("id2label", ["a", "b"]),
    ],
)
def test_a_value_of_a_hugging_face_config_that_cannot_be_used_is_a_checkpoint_error(tmp_path, field, value):
    document = {
        "model_type": "perceiver",
        "architectures": ["PerceiverForSequenceClassification"],
        "num_latents": 8,
        "d_latents": 32,
        "d_model": 24,
        field: value,
    }
    (tmp_path / "config.json").write_text(json.dumps(document))
    refusal(tmp_path, r"config\.json")


# Weights


def test_missing_weights_are_named(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    refusal(checkpoint, r"neither model\.safetensors nor pytorch_model\.bin")


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_truncated_safetensors_are_refused(checkpoint, kept):
    path = checkpoint / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    refusal(checkpoint, r"model\.safetensors cannot be read as safetensors .*truncated")


def test_safetensors_that_claim_an_enormous_header_are_refused(checkpoint):
    (checkpoint / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    refusal(checkpoint, "cannot be read as safetensors")


class Attack:
    """A pickle of this creates a file when it is loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (Path(self.target),)


def replace_by_pickle(directory, content, *, legacy=False):
    (directory / "model.safetensors").unlink()
    if isinstance(content, bytes):
        (directory / "pytorch_model.bin").write_bytes(content)
    else:
        torch.save(content, directory / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)


@pytest.mark.parametrize("container", ["pickle 2", "pickle 4", "torch zip", "torch legacy"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_code_in_a_pickle_is_refused_and_not_run(checkpoint, tmp_path, container):
    target = tmp_path / "attacked"
    content = {"weight": torch.zeros(1), "attack": Attack(str(target))}
    if container.startswith("pickle"):
        content = pickle.dumps(content["attack"], protocol=int(container[-1]))
    replace_by_pickle(checkpoint, content, legacy=container == "torch legacy")
    refusal(checkpoint, "holds more than tensors, so it was not loaded")
    assert not target.exists()
    if container.startswith("pickle"):  # the attack works on who loads it carelessly
        pickle.loads(content)  # noqa: TID251 - our own bytes
        assert target.exists()


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(1)], {"weight": 1}, {"model": {"weight": torch.zeros(1)}}, {0: torch.zeros(1)}, torch.zeros(1)],
    ids=["list", "number", "nested", "numbered", "tensor"],
)
def test_a_bin_that_is_no_state_dict_is_refused(checkpoint, content):
    replace_by_pickle(checkpoint, content)
    refusal(checkpoint, "is not a state dict")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"], ids=["empty", "text", "zip head"])
def test_a_bin_that_is_no_pickle_is_refused(checkpoint, content):
    replace_by_pickle(checkpoint, content)
    refusal(checkpoint, r"pytorch_model\.bin")


@given(st.binary(max_size=40))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_any_bytes_for_weights_are_a_checkpoint_error(checkpoint, name, content):
    (checkpoint / "model.safetensors").unlink(missing_ok=True)
    (checkpoint / name).write_bytes(content)
    refusal(checkpoint, name)


def test_a_truncated_bin_is_refused(checkpoint):
    replace_by_pickle(checkpoint, small_model("masked_lm").state_dict())
    path = checkpoint / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-2000])
    refusal(checkpoint, r"pytorch_model\.bin cannot be read .*truncated")


def test_safetensors_are_preferred_to_a_pickle_beside_them(checkpoint, tmp_path):
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Attack(str(tmp_path / "attacked"))))
    load_checkpoint(checkpoint)
    assert not (tmp_path / "attacked").exists()


def test_a_missing_tensor_is_named(checkpoint):
    edit_tensors(checkpoint, lambda found: found.pop("encoder.latents"))
    refusal(checkpoint, r"1 missing \(encoder\.latents\)")


def test_an_unexpected_tensor_is_named(checkpoint):
    edit_tensors(checkpoint, lambda found: found.update({"encoder.extra": torch.zeros(1)}))
    refusal(checkpoint, r"1 unexpected \(encoder\.extra\)")


def test_a_misshaped_tensor_is_named_with_both_shapes(checkpoint):
    edit_tensors(checkpoint, lambda found: found.update({"encoder.latents": torch.zeros(8, 31)}))
    refusal(checkpoint, r"1 of another shape \(encoder\.latents is \[8, 31\], expected \[8, 32\]\)")


def test_all_kinds_of_misfit_are_reported_together_and_long_lists_are_cut(checkpoint):
    def change(found):
        for name in [name for name in found if name.startswith("decoder.")]:
            del found[name]
        found["encoder.extra"] = torch.zeros(1)

    edit_tensors(checkpoint, change)
    message = refusal(checkpoint, r"\d+ missing \(decoder\.queries, .*, \.\.\.\); 1 unexpected \(encoder\.extra\)")
    assert message.count("decoder.") == 5


def test_a_tensor_of_integers_where_floats_belong_is_named(checkpoint):
    edit_tensors(checkpoint, lambda found: found.update({"encoder.latents": torch.zeros(8, 32, dtype=torch.int64)}))
    refusal(checkpoint, r"encoder\.latents")


# Finding


def test_a_file_instead_of_a_directory_is_refused(checkpoint):
    refusal(checkpoint / "model.safetensors", "is a file; a checkpoint is a directory")


@pytest.mark.parametrize("name", ["no-such-name", "/no/such/directory", "a/b/c"])
def test_an_unknown_name_is_refused_without_asking_the_hub(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match=f"{name} does not exist. Shipped checkpoints:"):
        load_checkpoint(name)


@pytest.mark.parametrize("error", [OSError("no network\nsecond line"), OSError(), TimeoutError("slow")])
def test_a_hub_name_without_network_is_something_missing(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(MissingError, match="'deepmind/no-such-perceiver' is not a local directory") as caught:
        load_checkpoint("deepmind/no-such-perceiver")
    assert caught.value.exit_code == 5
    assert type(error).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_name_downloads_configuration_and_weights_only(checkpoint, monkeypatch):
    asked = {}

    def download(name, **options):
        asked[name] = options
        return str(checkpoint)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_checkpoint("deepmind/perceiver") == checkpoint
    assert asked == {"deepmind/perceiver": {"allow_patterns": ["*.json", "*.safetensors", "*.bin"]}}


def test_a_local_directory_wins_over_a_hub_name(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkpoint, "deepmind/perceiver")
    assert find_checkpoint("deepmind/perceiver") == Path("deepmind/perceiver")
