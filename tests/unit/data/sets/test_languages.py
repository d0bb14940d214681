"""How spoken prompts are split."""

from __future__ import annotations

import numpy as np

from perceiver_deploy.data.sets.languages import held_out

PROMPTS = [f"prompt-{index}" for index in range(100)]


def test_a_fifth_of_the_prompts_is_held_out_and_always_the_same():
    in_test = held_out(PROMPTS)
    assert in_test.sum() == 20
    assert np.array_equal(held_out(PROMPTS), in_test)


def test_a_prompt_goes_to_one_split_in_all_languages_wherever_it_stands():
    once = dict(zip(PROMPTS, held_out(PROMPTS), strict=True))
    several = [*PROMPTS[::-1], *PROMPTS[::2], *PROMPTS]
    assert np.array_equal(held_out(several), [once[prompt] for prompt in several])
