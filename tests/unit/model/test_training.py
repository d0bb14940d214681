import pytest
import torch
from torch.nn import functional

from perceiver_deploy.model.tasks.catalogue import build_model
from tests.helpers.factories import KINDS, perturb, small_config, small_model, some_inputs, tensors


def training_model(kind, **changes):
    torch.manual_seed(0)
    model = build_model(small_config(kind, **changes))
    perturb(model)
    return model.train()


def loss_of(model, kind):
    logits = model(**tensors(some_inputs(kind)))["logits"].flatten(0, -2)
    return functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[-1])


def gradients(model, kind):
    model.zero_grad()
    loss_of(model, kind).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_finite_gradient_that_is_not_all_zero(kind):
    model = training_model(kind)
    found = gradients(model, kind)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert [name for name, gradient in found.items() if not torch.isfinite(gradient).all()] == []
    # A bias of the keys adds the same to all scores of a query, and softmax takes it out: its gradient is zero.
    assert [name for name, gradient in found.items() if not gradient.any() and not name.endswith("key.bias")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_of_gradient_descent_lowers_the_loss(kind):
    model = training_model(kind)
    before = loss_of(model, kind)
    before.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-3 * parameter.grad
    assert loss_of(model, kind) < before


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_gives_the_same_loss_and_gradients(kind):
    model = training_model(kind)
    plain_loss, plain = loss_of(model, kind), gradients(model, kind)
    model.encoder.gradient_checkpointing = True
    # the same operations in the same order on one thread: bit-equal
    assert torch.equal(loss_of(model, kind), plain_loss)
    checkpointed = gradients(model, kind)
    assert [name for name in plain if not torch.equal(plain[name], checkpointed[name])] == []


def test_gradient_checkpointing_gives_the_same_gradients_under_dropout():
    model = training_model("fourier", dropout=0.5)
    torch.manual_seed(1)
    plain = gradients(model, "fourier")
    model.encoder.gradient_checkpointing = True
    torch.manual_seed(1)
    checkpointed = gradients(model, "fourier")
    assert [name for name in plain if not torch.equal(plain[name], checkpointed[name])] == []


def test_gradient_checkpointing_recomputes_each_self_attention_layer_in_the_backward_pass():
    model = training_model("fourier")
    calls = []
    for layer in model.encoder.self_attends:
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients(model, "fourier")
    assert len(calls) == 2  # one layer in 2 blocks
    calls.clear()
    model.encoder.gradient_checkpointing = True
    gradients(model, "fourier")
    assert len(calls) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_random_in_training_and_off_in_evaluation(kind):
    inputs = tensors(some_inputs(kind))
    model = small_model(kind, dropout=0.5)
    without_dropout = small_model(kind)
    with torch.no_grad():
        assert torch.equal(model(**inputs)["logits"], without_dropout(**inputs)["logits"])
        model.train()
        assert not torch.equal(model(**inputs)["logits"], model(**inputs)["logits"])


def test_dropout_of_zero_makes_training_deterministic():
    model = training_model("masked_lm")
    inputs = tensors(some_inputs("masked_lm"))
    assert torch.equal(model(**inputs)["logits"], model(**inputs)["logits"])
