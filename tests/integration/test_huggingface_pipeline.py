"""From a directory that transformers saved to predictions: labels kept, text files run, too long a text refused."""

from __future__ import annotations

import json

import pytest
import transformers
from click.testing import CliRunner

from perceiver_deploy import export_model, load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.cli.main import main
from perceiver_deploy.data.media.text import encode

SMALL = {
    "num_latents": 8,
    "d_latents": 32,
    "num_self_attends_per_block": 2,
    "d_model": 24,
    "qk_channels": 16,
    "v_channels": 32,
    "max_position_embeddings": 40,
}
MODELS = transformers.models.perceiver.modeling_perceiver


def call(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory):
    """A text classifier with labels of its own, exported by the command line."""
    folder = tmp_path_factory.mktemp("sentiment")
    labels = {0: "negative", 1: "neutral", 2: "positive"}
    config = transformers.PerceiverConfig(**SMALL, id2label=labels, label2id={v: k for k, v in labels.items()})
    MODELS.PerceiverForSequenceClassification(config).save_pretrained(folder / "checkpoint")
    result = call("export", folder / "checkpoint", "-o", folder / "bundle", "--quiet")
    assert result.exit_code == 0, result.output
    return folder / "bundle"


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    MODELS.PerceiverForMaskedLM(transformers.PerceiverConfig(**SMALL)).save_pretrained(folder / "checkpoint")
    export_model(folder / "checkpoint", folder / "bundle")
    return folder / "bundle"


def test_labels_of_the_checkpoint_are_kept_in_the_bundle_and_in_predictions(sentiment, tmp_path):
    assert Bundle.open(sentiment).manifest.labels == ("negative", "neutral", "positive")
    (tmp_path / "x.txt").write_text("a film to see twice")
    document = json.loads(call("run", sentiment, tmp_path / "x.txt", "--json", "--quiet").stdout)
    assert {label for label, _ in document[0]["classes"]} == {"negative", "neutral", "positive"}
    assert sum(share for _, share in document[0]["classes"]) == pytest.approx(1, abs=1e-6)


def test_masked_bytes_are_filled_in_and_the_rest_is_kept(language, tmp_path):
    (tmp_path / "x.txt").write_text("a [MASK]ilm")
    (prediction,) = json.loads(call("run", language, tmp_path / "x.txt", "--json", "--quiet").stdout)
    ids = encode("a [MASK]ilm", Bundle.open(language).manifest.preprocessing)
    with load(language) as session:
        logits = session.run({"input_ids": ids[None], "attention_mask": (ids[None] >= 0).astype("int64")})["logits"]
    filled = bytes([int(logits[0, 3, 6:].argmax())])
    assert prediction["text"] == (b"a " + filled + b"ilm").decode("utf-8", errors="replace")


def test_a_text_longer_than_the_position_table_is_refused_with_both_numbers(language, tmp_path):
    (tmp_path / "x.txt").write_text("x" * 39)
    result = call("run", language, tmp_path / "x.txt", "--quiet")
    assert result.exit_code == 1
    assert "41 tokens" in result.stderr
    assert "position table holds 40" in result.stderr
    (tmp_path / "x.txt").write_text("x" * 38)
    assert call("run", language, tmp_path / "x.txt", "--quiet").exit_code == 0


def test_a_text_file_given_to_an_image_model_and_an_empty_one_are_handled(sentiment, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    assert call("run", sentiment, tmp_path / "empty.txt", "--quiet").exit_code == 0
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfd")
    result = call("run", sentiment, tmp_path / "bytes.txt", "--quiet")
    assert result.exit_code == 1
    assert "UTF-8" in result.stderr


def test_bundle_holds_no_path_of_this_machine(sentiment):
    for file in sentiment.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert b"site-packages" not in content
            assert str(sentiment.parent).encode() not in content
