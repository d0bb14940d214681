"""Outputs are held to the manifest at every run."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.bundle.manifest import TensorSpec
from perceiver_deploy.errors import ParityError
from perceiver_deploy.runtimes.checks.outputs import OutputCheck

LOGITS = TensorSpec(name="logits", dtype="float32", shape=("batch", 3))
SOUND = TensorSpec(name="sound", dtype="float32", shape=("batch", "16*queries"))
FREE = TensorSpec(name="free", dtype="float32", shape=("unknown", 2))
SIZES = {"batch": 2, "queries": 4}


def outputs(**shapes):
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def test_outputs_as_stated_are_returned():
    found = outputs(logits=(2, 3), sound=(2, 64))
    assert OutputCheck([LOGITS, SOUND])(found, SIZES, "engine") is found


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 2), (2, 4), (2,), ()])
def test_another_rank_or_size_is_refused_with_what_was_expected(shape):
    text = rf"engine gives output 'logits' with shape {list(shape)}; the manifest says \[batch, 3\] = \[2, 3\]"
    with pytest.raises(ParityError, match=text.replace(str(list(shape)), str(list(shape)).replace("[", r"\["))):
        OutputCheck([LOGITS])(outputs(logits=shape), SIZES, "engine")


def test_sizes_that_follow_from_axes_are_checked():
    with pytest.raises(ParityError, match=r"\[batch, 16\*queries\] = \[2, 64\]"):
        OutputCheck([SOUND])(outputs(sound=(2, 63)), SIZES, "engine")


def test_another_dtype_is_refused():
    with pytest.raises(ParityError, match="'logits' in float64; the manifest says float32"):
        OutputCheck([LOGITS])({"logits": np.zeros((2, 3))}, SIZES, "engine")
    found = {"logits": np.zeros((2, 3))}
    assert OutputCheck([LOGITS], double=True)(found, SIZES, "eager") is found


def test_of_a_size_that_inputs_do_not_say_only_the_rank_is_checked():
    check = OutputCheck([FREE])
    for size in (0, 1, 7):
        check(outputs(free=(size, 2)), SIZES, "engine")
    with pytest.raises(ParityError, match=r"the manifest says \[unknown, 2\]\."):
        check(outputs(free=(7, 2, 1)), SIZES, "engine")
    with pytest.raises(ParityError):
        check(outputs(free=(7, 3)), SIZES, "engine")


def test_other_sizes_of_the_next_run_are_noticed():
    check = OutputCheck([LOGITS])
    check(outputs(logits=(2, 3)), SIZES, "engine")
    check(outputs(logits=(5, 3)), {"batch": 5}, "engine")
    with pytest.raises(ParityError):
        check(outputs(logits=(2, 3)), {"batch": 5}, "engine")
