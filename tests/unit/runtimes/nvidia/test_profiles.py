from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_deploy.bundle.manifest import Axis, Stage, TensorSpec
from perceiver_deploy.errors import UsageError
from perceiver_deploy.runtimes.nvidia.profiles import UNBOUNDED_BATCH_MAX, default_sizes, input_profile, parse_shapes

AXES = {
    "batch": Axis(opt=1),
    "length": Axis(min=8, opt=512, max=2048),
    "samples": Axis(min=1, opt=160, multiple_of=16),
}
STAGE = Stage(
    inputs=(
        TensorSpec(name="input_ids", dtype="int64", shape=("batch", "length")),
        TensorSpec(name="attention_mask", dtype="int64", shape=("batch", "length")),
        TensorSpec(name="audio", dtype="float32", shape=("batch", "samples", 1)),
        TensorSpec(name="audio_mask", dtype="int64", shape=("batch", "samples/16")),
    ),
    outputs=(),
)


def test_shapes_given_as_three_numbers_or_one_replace_the_defaults() -> None:
    [sizes] = parse_shapes(["length=16:512:1024", "batch=4"], AXES)
    assert sizes["length"] == (16, 512, 1024)
    assert sizes["batch"] == (4, 4, 4)


def test_axes_not_given_reach_from_their_min_to_their_max() -> None:
    assert parse_shapes([], AXES)[0]["length"] == (8, 512, 2048)


def test_unbounded_axes_get_a_bounded_default() -> None:
    [sizes] = parse_shapes([], AXES)
    assert sizes["batch"] == (1, 1, UNBOUNDED_BATCH_MAX)
    assert sizes["samples"] == (16, 160, 320)


def test_unbounded_batch_with_a_large_opt_is_not_cut_below_it() -> None:
    assert default_sizes("batch", Axis(opt=64)) == (1, 64, 64)


def test_inputs_that_share_an_axis_have_the_same_sizes() -> None:
    profile = input_profile(STAGE, parse_shapes(["length=16:32:64", "batch=1:2:4", "samples=32"], AXES)[0])
    assert profile["input_ids"] == profile["attention_mask"] == ((1, 16), (2, 32), (4, 64))
    assert profile["audio"] == ((1, 32, 1), (2, 32, 1), (4, 32, 1))
    assert profile["audio_mask"] == ((1, 2), (2, 2), (4, 2))


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ("lenght=1:2:3", ["'lenght'", "batch, length, samples"]),
        ("=1:2:3", ["''", "batch, length, samples"]),
        ("length", ["'length'", "AXIS=MIN:OPT:MAX", "length=8:512:2048"]),
        ("length=", ["AXIS=MIN:OPT:MAX"]),
        ("length=16:512", ["'length=16:512'", "AXIS=MIN:OPT:MAX"]),
        ("length=16:512:1024:2048", ["AXIS=MIN:OPT:MAX"]),
        ("length=16:x:1024", ["AXIS=MIN:OPT:MAX", "whole numbers"]),
        ("length=-1:16:32", ["AXIS=MIN:OPT:MAX"]),
        ("length=64:32:128", ["min 64, opt 32 and max 128", "min <= opt <= max"]),
        ("length=16:64:32", ["min <= opt <= max"]),
        ("length=4:16:32", ["starts at 4", "at least 8"]),
        ("batch=0:1:4", ["starts at 0", "at least 1"]),
        ("length=16:512:4096", ["up to 4096", "position table", "2048"]),
        ("samples=16:40:160", ["the size 40", "multiples of 16", "48"]),
        ("batch=1:1:3000000000", ["3000000000", "2147483647"]),
    ],
)
def test_shape_that_breaks_a_rule_is_a_usage_error_naming_value_and_expectation(shape: str, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_shapes([shape], AXES)
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_axis_given_several_times_makes_as_many_profiles_and_others_are_the_same_in_all() -> None:
    shapes = ["length=8:16:32", "batch=1:2:4", "length=33:64:128", "samples=16", "samples=32"]
    first, second = parse_shapes(shapes, AXES)
    assert (first["length"], second["length"]) == ((8, 16, 32), (33, 64, 128))
    assert (first["samples"], second["samples"]) == ((16, 16, 16), (32, 32, 32))
    assert first["batch"] == second["batch"] == (1, 2, 4)
    for sizes in (first, second):
        profile = input_profile(STAGE, sizes)
        assert profile["input_ids"] == profile["attention_mask"]


def test_axes_given_unequally_often_are_a_usage_error_that_counts_both() -> None:
    shapes = ["length=16", "length=32", "length=64", "batch=1", "batch=2"]
    with pytest.raises(UsageError, match=r"'length' is given 3 times.*'batch' is given 2 times"):
        parse_shapes(shapes, AXES)


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    step = draw(st.sampled_from([1, 1, 3, 16]))
    sizes = sorted(draw(st.lists(st.integers(1, 300), min_size=3, max_size=3)))
    bounded = draw(st.booleans())
    return Axis(min=sizes[0] * step, opt=sizes[1] * step, max=sizes[2] * step if bounded else None, multiple_of=step)


@given(axis=axes(), name=st.sampled_from(["batch", "length"]))
def test_default_sizes_are_in_order_and_fit_the_axis(axis: Axis, name: str) -> None:
    sizes = default_sizes(name, axis)
    assert sizes.min <= sizes.opt <= sizes.max
    assert [axis.problem(size) for size in sizes] == [None] * 3


@given(axis=axes(), sizes=st.tuples(*[st.integers(0, 5000)] * 3))
def test_accepted_shapes_are_those_that_the_axis_takes_in_order(axis: Axis, sizes: tuple[int, int, int]) -> None:
    fits = sizes[0] <= sizes[1] <= sizes[2] and not any(axis.problem(size) for size in sizes)
    text = "length={}:{}:{}".format(*sizes)
    if fits:
        assert parse_shapes([text], {"length": axis})[0]["length"] == sizes
    else:
        with pytest.raises(UsageError):
            parse_shapes([text], {"length": axis})
