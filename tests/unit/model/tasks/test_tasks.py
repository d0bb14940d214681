"""Models of the tasks beyond text and images: what masks and points mean."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from perceiver_deploy.evaluate.parity.grid import Case, make_inputs, shape_grid
from tests.helpers.factories import perturbed_model, tensors
from tests.helpers.task_factories import TASK_CONFIGS

TASKS = tuple(TASK_CONFIGS)
MASKED = ("audio_classification", "point_cloud_classification", "entities", "tokens", "multitask_text")


def inputs_of(model, case="odd", **sizes):
    """Inputs of a case of the grid in float64, with some sizes replaced."""
    found = next(point for point in shape_grid(model.signature) if point.name == case)
    return tensors(make_inputs(model.signature, Case(case, {**found.sizes, **sizes}), None), torch.float64)


@pytest.fixture(scope="module", params=TASKS)
def model(request):
    return perturbed_model(TASK_CONFIGS[request.param]).double()


def test_every_parameter_that_is_used_gets_a_gradient(model):
    trained = perturbed_model(model.config).train()
    outputs = trained(**{name: t.float() if t.is_floating_point() else t for name, t in inputs_of(model).items()})
    sum((output * torch.randn_like(output)).sum() for output in outputs.values()).backward()
    without = {name for name, parameter in trained.named_parameters() if parameter.grad is None}
    # a modality that is never masked has a mask token, as in the published checkpoint, and no use for it; the padding
    # of one that is always masked is masked too
    unused = {"input_adapter.mask.audio", "input_adapter.mask.image", "input_adapter.padding.label"}
    assert without <= unused


def test_output_shapes_are_those_of_the_signature(model):
    inputs = inputs_of(model)
    sizes = {
        "batch": 3,
        **{name: size for case in shape_grid(model.signature)[1:2] for name, size in case.sizes.items()},
    }
    outputs = model(**inputs)
    case = Case("odd", sizes)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        spec.name: case.shape(spec) for spec in model.signature.stage.outputs
    }


def test_rows_of_a_batch_do_not_touch_each_other(model):
    inputs = inputs_of(model)
    shared = {"image_points", "audio_points", "task_ids"}
    first = {name: tensor if name in shared else tensor[:1] for name, tensor in inputs.items()}
    for name, output in model(**inputs).items():
        # two ways through the same float64 arithmetic
        torch.testing.assert_close(model(**first)[name], output[:1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("task", MASKED)
def test_masked_tokens_have_no_influence_and_fully_masked_rows_do_not_depend_on_the_input(task):
    model = perturbed_model(TASK_CONFIGS[task]).double()
    inputs = inputs_of(model)
    mask = inputs["attention_mask"]
    mask[1, mask.shape[1] // 2 :] = 0
    mask[2] = 0
    changed = {name: tensor.clone() for name, tensor in inputs.items()}
    name = model.signature.stage.inputs[0].name
    hidden = (mask == 0).repeat_interleave(inputs[name].shape[1] // mask.shape[1], dim=1)
    changed[name][hidden] = 0 if changed[name].dtype == torch.int64 else 100.0
    for key, output in model(**inputs).items():
        torch.testing.assert_close(model(**changed)[key], output, rtol=1e-10, atol=1e-12)


def test_entity_logits_of_masked_entities_are_zero_and_permuting_entities_permutes_them():
    config = TASK_CONFIGS["entities"]
    config = dataclasses.replace(config, input=dataclasses.replace(config.input, max_entities=None))
    model = perturbed_model(config).double()
    inputs = inputs_of(model)
    inputs["attention_mask"][0, 3] = 0
    outputs = model(**inputs)
    assert not outputs["entity_logits"][0, 3].any()
    order = torch.randperm(inputs["entities"].shape[1])
    permuted = model(**{name: tensor[:, order] for name, tensor in inputs.items()})
    torch.testing.assert_close(permuted["logits"], outputs["logits"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(permuted["entity_logits"], outputs["entity_logits"][:, order], rtol=1e-10, atol=1e-12)


def test_points_decoded_in_chunks_equal_those_decoded_in_one_call():
    model = perturbed_model(TASK_CONFIGS["multimodal_autoencoding"]).double()
    inputs = inputs_of(model)
    whole = model(**inputs)["image_reconstruction"]
    points = inputs["image_points"]
    chunks = [model(**{**inputs, "image_points": chunk})["image_reconstruction"] for chunk in points.split(37)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), whole, rtol=1e-10, atol=1e-12)


def test_a_modality_that_is_always_masked_has_no_influence_and_nothing_is_random():
    model = perturbed_model(TASK_CONFIGS["multimodal_autoencoding"]).double()
    inputs = inputs_of(model)
    first, second = model(**inputs), model(**{**inputs, "label": torch.rand_like(inputs["label"])})
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_masking_with_a_probability_is_random_in_training_only():
    config = TASK_CONFIGS["multimodal_autoencoding"]
    masked = dataclasses.replace(config.input, mask_probabilities={"image": 0.5, "label": 1.0})
    model = perturbed_model(dataclasses.replace(config, input=masked)).double()
    inputs = inputs_of(model)
    assert torch.equal(model(**inputs)["label_logits"], model(**inputs)["label_logits"])
    model.train()
    assert not torch.equal(model(**inputs)["label_logits"], model(**inputs)["label_logits"])


@pytest.mark.parametrize(
    ("task", "part", "changes", "message"),
    [
        ("entities", "decoder", {"query_channels": 13}, "query_channels"),
        ("multimodal_autoencoding", "decoder", {"query_channels": 20}, "query_channels"),
        ("video_classification", "encoder", {"num_cross_attentions": 5}, "num_cross_attentions 5"),
        ("multitask_text", "decoder", {"num_queries": None}, "num_queries"),
        ("tokens", "decoder", {"num_queries": 3}, "takes queries as input: decoder.num_queries 3 must be null"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(task, part, changes, message):
    config = TASK_CONFIGS[task]
    with pytest.raises(ValueError, match=message):
        perturbed_model(dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **changes)}))


def test_input_of_another_kind_than_the_task_takes_is_refused():
    with pytest.raises(ValueError, match="task 'optical_flow' takes flow input, not 'text'"):
        dataclasses.replace(TASK_CONFIGS["optical_flow"], input=TASK_CONFIGS["multitask_text"].input)
