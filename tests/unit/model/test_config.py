import dataclasses
import json

import pytest

from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.tasks.catalogue import build_model
from tests.helpers.factories import KINDS, small_config
from tests.helpers.task_factories import TASK_CONFIGS


def test_a_masked_lm_with_fewer_queries_than_its_maximal_length_is_refused():
    """Its logits would silently end before the input does."""
    config = small_config("masked_lm")
    with pytest.raises(ValueError, match="num_queries"):
        build_model(dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, num_queries=4)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_survives_a_round_trip_through_its_json(kind):
    config = small_config(kind)
    assert PerceiverConfig.from_document(json.loads(config.to_json()), "here") == config


def test_a_configuration_with_labels_that_do_not_match_its_outputs_is_refused():
    document = json.loads(small_config("fourier").to_json())
    document["labels"] = ["only one"]
    with pytest.raises(CheckpointError, match=r"here is not a Perceiver configuration: .*1 labels for 5 outputs"):
        PerceiverConfig.from_document(document, "here")


@pytest.mark.parametrize(
    ("part", "field", "value"), [("encoder", "num_blocks", 0), ("encoder", "num_latents", -1), (None, "dropout", 7)]
)
def test_a_value_out_of_range_is_refused_and_named(part, field, value):
    document = json.loads(small_config("fourier").to_json())
    (document[part] if part else document)[field] = value
    with pytest.raises(CheckpointError, match=field):
        PerceiverConfig.from_document(document, "here")


@pytest.mark.parametrize(
    ("task_labels", "message"),
    [
        ({"first": ["a", "b"], "second": ["c"]}, "task_labels of 2 tasks for 3 queries"),
        ({"first": ["a"], "second": [], "third": ["b"]}, "'second' has 0 labels for 5 outputs"),
        ({"first": ["a"], "second": ["b"], "third": list("abcdef")}, "'third' has 6 labels for 5 outputs"),
    ],
)
def test_task_labels_that_do_not_match_queries_and_outputs_are_refused(task_labels, message):
    document = json.loads(TASK_CONFIGS["multitask_text"].to_json())
    document["task_labels"] = task_labels
    with pytest.raises(CheckpointError, match=message):
        PerceiverConfig.from_document(document, "here")


def test_task_labels_of_a_model_of_one_task_are_refused():
    document = json.loads(small_config("text_classification").to_json())
    document["task_labels"] = {"only": list("abcde")}
    with pytest.raises(CheckpointError, match="for 1 queries of task 'text_classification'"):
        PerceiverConfig.from_document(document, "here")


def test_task_labels_survive_a_round_trip_in_their_order():
    labels = {"zebra": ("x",), "ant": ("y", "z"), "bee": ("w",)}
    config = dataclasses.replace(TASK_CONFIGS["multitask_text"], task_labels=labels)
    read = PerceiverConfig.from_document(json.loads(config.to_json()), "here")
    assert read == config
    assert list(read.task_labels) == list(labels)
