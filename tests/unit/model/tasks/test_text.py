"""The masked language model: queries at masked positions, and decoders that do not fit."""

import dataclasses

import pytest
import torch

from perceiver_deploy.model.config import Semantics
from tests.helpers.factories import small_config, small_model, tensors, text_inputs


def logits(masked_queries, inputs):
    model = small_model("masked_lm", semantics=Semantics(masked_queries=masked_queries)).double()
    with torch.no_grad():
        return model(**tensors(inputs))["logits"]


def test_masked_queries_get_nothing_from_the_latents_or_attend_like_the_others():
    inputs = text_inputs(3, 11, fully_masked_row=True)
    masked = torch.from_numpy(inputs["attention_mask"]) == 0
    zeros, attend = logits("zeros", inputs), logits("attend", inputs)
    assert torch.equal(zeros[~masked], attend[~masked])
    # without residual, what is left of a masked query is the same for all: biases
    torch.testing.assert_close(zeros[masked], zeros[0, :1].expand_as(zeros[masked]), rtol=1e-12, atol=1e-12)
    assert (zeros[masked] - attend[masked]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_queries": 31}, "decoder.num_queries 31 is less than input.max_length 32"),
        ({"output_channels": 5}, "decoder.output_channels 5 is neither null nor input.vocab_size 262"),
        ({"query_channels": 20}, r"decoder.query_channels 20 is not input.channels 24: .* \(output_channels null\)"),
        (
            {"query_channels": 20, "output_channels": 262, "num_queries": None},
            "query_channels 20 is not input.channels",
        ),
    ],
)
def test_a_decoder_that_does_not_fit_the_text_is_refused(changes, message):
    decoder = dataclasses.replace(small_config("masked_lm").decoder, **changes)
    with pytest.raises(ValueError, match=message):
        small_model("masked_lm", decoder=decoder)
