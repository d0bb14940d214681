import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_deploy.model.config import AttentionConfig, Semantics
from perceiver_deploy.model.perceiver import AttentionLayer, attention_bias
from tests.helpers.factories import perturb, perturbed_model
from tests.helpers.task_factories import TASK_CONFIGS

TOLERANCE = 1e-12  # float64: some 1e2 additions of numbers near 1, each rounded by 1.1e-16, leave two digits to spare
ZEROS, MEAN = Semantics(fully_masked_rows="zeros"), Semantics(fully_masked_rows="mean")


def layer(config=None, semantics=ZEROS, q_channels=12, kv_channels=10):
    torch.manual_seed(0)
    result = AttentionLayer(
        config or AttentionConfig(num_heads=2, qk_channels=8, v_channels=6, widening_factor=2),
        semantics,
        q_channels=q_channels,
        kv_channels=kv_channels,
    )
    perturb(result)
    return result.double().eval()


def random(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def formula(layer, query, key_value=None, mask=None, query_mask=None, *, fully_masked="zeros"):
    """The layer written out with NumPy, one sample, one head and one query at a time."""
    weights = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def gelu_tanh(x):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    results = []
    for index, sample in enumerate(query.numpy()):
        normed = norm("query_norm", sample)
        keys_from = normed if key_value is None else norm("key_value_norm", key_value[index].numpy())
        q, k, v = linear("query", normed), linear("key", keys_from), linear("value", keys_from)
        kept = np.ones(len(k), bool) if mask is None else mask[index].numpy() != 0
        asked = np.ones(len(q), bool) if query_mask is None else query_mask[index].numpy() != 0
        heads = []
        for q_h, k_h, v_h in zip(
            *(np.split(x, layer.num_heads, axis=-1) for x in (q, k, v)),
            strict=True,
        ):
            rows = []
            for row, is_asked in zip(q_h, asked, strict=True):
                if not is_asked:
                    rows.append(np.zeros(v_h.shape[1]))
                elif kept.any():
                    scores = k_h[kept] @ row / math.sqrt(len(row))
                    chances = np.exp(scores - scores.max())
                    rows.append(chances / chances.sum() @ v_h[kept])
                else:
                    rows.append(v_h.mean(0) if fully_masked == "mean" else np.zeros(v_h.shape[1]))
            heads.append(np.stack(rows))
        attended = linear("output", np.concatenate(heads, axis=-1))
        if layer.use_query_residual:
            attended = attended + sample
        if layer.mlp is not None:
            attended = attended + linear("mlp.2", gelu_tanh(linear("mlp.0", norm("mlp_norm", attended))))
        results.append(attended)
    return np.stack(results)


def check(found, expected):
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_cross_attention_with_different_qk_and_v_channels_is_the_written_out_formula():
    attention = layer()
    query, tokens = random(3, 5, 12), random(3, 7, 10, seed=1)
    check(attention(query, tokens), formula(attention, query, tokens))


@pytest.mark.parametrize("heads", [1, 3, 12])
def test_self_attention_is_the_written_out_formula_for_any_number_of_heads(heads):
    attention = layer(AttentionConfig(num_heads=heads), kv_channels=None)
    query = random(2, 6, 12)
    check(attention(query), formula(attention, query))


def test_default_channels_are_those_of_the_keys_in_cross_attention_and_of_the_latents_in_self_attention():
    cross, latent = layer(AttentionConfig()), layer(AttentionConfig(), kv_channels=None)
    assert (cross.query.out_features, cross.value.out_features, cross.output.in_features) == (10, 10, 10)
    assert (latent.query.out_features, latent.value.out_features) == (12, 12)
    assert layer(AttentionConfig(qk_channels=4)).value.out_features == 4


def test_attention_without_query_residual_leaves_the_query_out():
    attention = layer(AttentionConfig(use_query_residual=False))
    query, tokens = random(2, 3, 12), random(2, 4, 10, seed=1)
    check(attention(query, tokens), formula(attention, query, tokens))
    with_residual = layer(AttentionConfig(use_query_residual=True))
    assert not torch.allclose(attention(query, tokens), with_residual(query, tokens))


def test_widening_factor_0_leaves_the_mlp_and_its_norm_out():
    attention = layer(AttentionConfig(widening_factor=0))
    assert not [name for name in attention.state_dict() if "mlp" in name]
    query, tokens = random(2, 3, 12), random(2, 4, 10, seed=1)
    check(attention(query, tokens), formula(attention, query, tokens))


masks = st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=2, max_size=2)


@given(masks)
@settings(deadline=None)
@pytest.mark.parametrize("semantics", [ZEROS, MEAN], ids=["zeros", "mean"])
def test_masked_attention_is_the_formula_over_the_kept_keys_only(semantics, rows):
    attention = layer(semantics=semantics)
    query, tokens, mask = random(2, 3, 12), random(2, 6, 10, seed=1), torch.tensor(rows).long()
    expected = formula(attention, query, tokens, mask, fully_masked=semantics.fully_masked_rows)
    check(attention(query, tokens, mask), expected)


query_masks = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=2)


@given(masks, query_masks)
@settings(deadline=None)
@pytest.mark.parametrize("semantics", [ZEROS, MEAN], ids=["zeros", "mean"])
@pytest.mark.parametrize("residual", [True, False])
def test_masked_queries_get_zeros_out_of_the_attention_whatever_the_keys(semantics, residual, rows, query_rows):
    attention = layer(AttentionConfig(num_heads=2, use_query_residual=residual), semantics)
    query, tokens = random(2, 3, 12), random(2, 6, 10, seed=1)
    mask, query_mask = torch.tensor(rows).long(), torch.tensor(query_rows).long()
    expected = formula(attention, query, tokens, mask, query_mask, fully_masked=semantics.fully_masked_rows)
    check(attention(query, tokens, mask, query_mask), expected)


@given(masks, st.floats(-1e3, 1e3))
@settings(deadline=None)
def test_masked_keys_have_no_influence_at_all(rows, value):
    attention, mask = layer(), torch.tensor(rows).long()
    query, tokens = random(2, 3, 12), random(2, 6, 10, seed=1)
    changed = torch.where(mask[..., None] == 0, tokens.flip(-1) + value, tokens)
    assert torch.equal(attention(query, tokens, mask), attention(query, changed, mask))


def test_a_mask_of_ones_changes_nothing():
    attention, query, tokens = layer(), random(2, 3, 12), random(2, 6, 10, seed=1)
    check(attention(query, tokens, torch.ones(2, 6).long()), attention(query, tokens).detach().numpy())


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.float64], ids=lambda dtype: str(dtype).removeprefix("torch.")
)
def test_a_mask_means_the_same_in_every_dtype(dtype):
    attention, query, tokens = layer(), random(1, 3, 12), random(1, 4, 10, seed=1)
    mask = torch.tensor([[1, 0, 1, 0]])
    assert torch.equal(attention(query, tokens, mask.to(dtype)), attention(query, tokens, mask))


def test_fully_masked_rows_give_zeros_or_the_mean_and_leave_the_other_rows_alone():
    query, tokens, mask = random(2, 3, 12), random(2, 6, 10, seed=1), torch.tensor([[0] * 6, [1] * 6])
    for semantics, kind in ((ZEROS, "zeros"), (MEAN, "mean")):
        attention = layer(semantics=semantics)
        found = attention(query, tokens, mask)
        check(found, formula(attention, query, tokens, mask, fully_masked=kind))
        check(found[1:], formula(attention, query[1:], tokens[1:]))
    assert not torch.allclose(layer(semantics=ZEROS)(query, tokens, mask), layer(semantics=MEAN)(query, tokens, mask))


@pytest.mark.parametrize(("dtype", "masked"), [(torch.float16, -1e4), (torch.float32, -1e30), (torch.float64, -1e30)])
def test_attention_bias_is_finite_in_every_dtype(dtype, masked):
    bias = attention_bias(torch.tensor([[1, 0, 7]]), dtype)
    assert bias.shape == (1, 1, 1, 3)
    assert bias.dtype == dtype
    assert torch.isfinite(bias).all()
    assert bias.flatten().tolist() == torch.tensor([0, masked, 0], dtype=dtype).tolist()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AttentionConfig(num_heads=3, qk_channels=8), "qk_channels 8 is not divisible by num_heads 3"),
        (AttentionConfig(num_heads=2, qk_channels=8, v_channels=5), "v_channels 5 is not divisible by num_heads 2"),
        (AttentionConfig(num_heads=4), "qk_channels 10 is not divisible by num_heads 4"),
    ],
)
def test_channels_that_the_heads_do_not_divide_are_refused_by_name(config, message):
    with pytest.raises(ValueError, match=message):
        layer(config)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_the_activation_of_the_mlp_is_the_one_of_the_configuration(activation):
    attention = layer(semantics=Semantics(activation=activation))
    x = np.linspace(-3, 3, 50)
    expected = {
        "gelu": [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x],
        "gelu_tanh": [0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x],
        "relu": [max(v, 0) for v in x],
    }[activation]
    check(attention.mlp[1](torch.from_numpy(x)), expected)


@pytest.mark.parametrize(
    ("sharing", "cross_attentions", "blocks"), [("all", 1, 1), ("from_second", 2, 2), ("none", 3, 4)]
)
def test_sharing_says_how_many_sets_of_weights_there_are(sharing, cross_attentions, blocks):
    config = TASK_CONFIGS["video_classification"]
    encoder = dataclasses.replace(config.encoder, cross_attention_sharing=sharing, block_sharing=sharing)
    model = perturbed_model(dataclasses.replace(config, encoder=encoder))
    names = {name.partition(".query.weight")[0] for name in model.state_dict() if name.endswith(".query.weight")}
    assert len([name for name in names if "cross" in name]) == cross_attentions
    assert len([name for name in names if "cross" not in name]) == blocks


def test_interleaved_cross_attentions_attend_to_the_inputs_again():
    """With all weights shared, three cross-attentions are the same layer applied three times."""
    config = TASK_CONFIGS["video_classification"]
    encoder = dataclasses.replace(config.encoder, cross_attention_sharing="all", block_sharing="all")
    model = perturbed_model(dataclasses.replace(config, encoder=encoder)).double()
    tokens = random(3, 7, model.input_adapter.channels)
    latents = model.encoder.latents.expand(tokens.shape[0], -1, -1)
    for index in range(4):
        if index < 3:
            latents = model.encoder.cross_attention(latents, tokens)
        latents = model.encoder.self_attends[0](latents)
    torch.testing.assert_close(model.encoder(tokens), latents, rtol=1e-12, atol=1e-12)
