import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, TensorSpec
from perceiver_deploy.bundle.preprocessing import FlowPreprocessing, ImagePreprocessing
from perceiver_deploy.evaluate.parity.grid import Case, adversarial_cases, make_inputs, shape_grid
from perceiver_deploy.model.tasks.catalogue import build_model
from tests.helpers.factories import KINDS, TEXT_KINDS, small_model
from tests.helpers.task_factories import TASK_CONFIGS

MASKED = ["odd, padded", "odd, half", "odd, fully masked row"]


@pytest.mark.parametrize("kind", KINDS)
def test_grid_holds_opt_odd_and_min_and_masks_where_there_is_a_mask(kind):
    cases = shape_grid(small_model(kind).signature)
    names = [case.name for case in cases]
    assert names[:2] == ["opt", "odd"]
    assert names[2:5] == MASKED if kind in TEXT_KINDS else not set(names) & set(MASKED)
    assert "min" in names
    assert len(set(names)) == len(names)


def test_grid_takes_each_size_from_the_axis():
    signature = signature_of(length=Axis(min=2, opt=16, max=20))
    sizes = {case.name: case.sizes for case in shape_grid(signature)}
    assert sizes["opt"] == {"batch": 1, "length": 16}
    assert sizes["odd"] == {"batch": 3, "length": 11}
    assert sizes["min"] == {"batch": 2, "length": 2}
    assert sizes["max"] == {"batch": 1, "length": 20}


def test_grid_leaves_max_out_where_it_is_opt():
    assert [case.name for case in shape_grid(signature_of(length=Axis(opt=16, max=16)))] == ["opt", "odd", "min"]


def test_grid_goes_beyond_opt_where_nothing_bounds_an_axis():
    cases = {case.name: case.sizes for case in shape_grid(signature_of(height=Axis(opt=8), width=Axis(opt=9)))}
    assert "max" not in cases
    assert cases["beyond opt"] == {"batch": 1, "height": 10, "width": 12}


def test_grid_gives_two_axes_of_one_opt_different_odd_sizes():
    """Equal ones would hide that height and width were swapped."""
    odd = shape_grid(signature_of(height=Axis(opt=224), width=Axis(opt=224)))[1].sizes
    assert odd["height"] % 2 == odd["width"] % 2 == 1
    assert odd["height"] != odd["width"]
    assert 224 not in odd.values()


def signature_of(mask=False, **axes):
    x = TensorSpec(name="x", dtype="float32", shape=("batch", *axes))
    inputs = (x, TensorSpec(name="attention_mask", dtype="int64", shape=("batch", *axes))) if mask else (x,)
    y = TensorSpec(name="y", dtype="float32", shape=("batch",))
    axes = {"batch": Axis(opt=1), **axes}
    return Signature(task="image_classification", axes=axes, stage=Stage(inputs=inputs, outputs=(y,)))


@st.composite
def axis(draw):
    """Any axis whose opt can be taken; min and max are bounds and need not be multiples of the step."""
    step = draw(st.integers(1, 20))
    opt = step * draw(st.integers(1, 60))
    least = draw(st.integers(1, opt))
    most = draw(st.none() | st.integers(opt, opt + 500))
    return Axis(min=least, opt=opt, max=most, multiple_of=step)


@given(st.lists(axis(), min_size=1, max_size=3))
def test_every_size_of_the_grid_is_one_that_its_axis_takes(axes):
    named = {f"axis{index}": axis for index, axis in enumerate(axes)}
    signature = signature_of(mask=True, **named)
    for case in shape_grid(signature):
        assert case.sizes.keys() == signature.axes.keys()
        for name, size in case.sizes.items():
            assert signature.axes[name].problem(size) is None, (case, name)


@given(axis())
def test_grid_reaches_both_ends_of_an_axis(axis):
    sizes = [case.sizes["length"] for case in shape_grid(signature_of(length=axis))]
    step = axis.multiple_of
    assert min(sizes) == -(-axis.min // step) * step
    assert max(sizes) == axis.max // step * step if axis.max is not None else max(sizes) > axis.opt


def test_an_axis_of_two_sizes_is_exercised_at_both():
    sizes = {case.sizes["length"] for case in shape_grid(signature_of(length=Axis(opt=2, max=2)))}
    assert sizes == {1, 2}


def mask_of(name, length=9):
    signature = signature_of(mask=True, length=Axis(opt=length, max=length))
    case = next(case for case in shape_grid(signature) if case.name == name)
    return make_inputs(signature, case, None)["attention_mask"]


def test_mask_of_unmasked_cases_is_all_ones():
    assert mask_of("opt", 4).tolist() == [[1, 1, 1, 1]]


def test_padded_mask_shortens_each_row_more():
    mask = mask_of("odd, padded")
    kept = mask.sum(1)
    assert kept[0] == mask.shape[1]
    assert (np.diff(kept) < 0).all()
    assert kept.min() >= 1
    assert all((np.diff(row) <= 0).all() for row in mask)  # ones, then zeros


def test_half_mask_drops_every_second_token():
    assert mask_of("odd, half", 8).tolist() == [[1, 0, 1, 0, 1]] * 3


def test_fully_masked_row_is_the_first_and_the_only_one():
    assert mask_of("odd, fully masked row").sum(1).tolist() == [0, 5, 5]


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_have_the_declared_shapes_dtypes_and_values(kind):
    model = small_model(kind)
    signature = model.signature
    for case in shape_grid(signature):
        inputs = make_inputs(signature, case, model.config.preprocessing)
        assert list(inputs) == [spec.name for spec in signature.stage.inputs]
        for spec in signature.stage.inputs:
            array = inputs[spec.name]
            assert array.dtype == spec.dtype
            assert array.shape == tuple(case.sizes.get(size, size) for size in spec.shape)
            if spec.minimum is not None:
                assert spec.minimum <= array.min()
                assert array.max() <= spec.maximum


def test_inputs_reach_both_ends_of_the_vocabulary():
    model = small_model("masked_lm")
    signature = model.signature
    cases = {case.name: case for case in shape_grid(signature)}
    drawn = [make_inputs(signature, cases["odd"], None, seed)["input_ids"] for seed in range(60)]
    assert min(array.min() for array in drawn) == 0
    assert max(array.max() for array in drawn) == 261


def test_pixels_span_what_preprocessing_can_give_and_no_more():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    preprocessing = ImagePreprocessing(size=None, mean=mean, std=std)
    signature = small_model("fourier").signature
    case = shape_grid(signature)[0]
    pixels = make_inputs(signature, case, preprocessing)["pixel_values"]
    for channel in range(3):
        least, most = (0 - mean[channel]) / std[channel], (1 - mean[channel]) / std[channel]
        found = pixels[:, channel]
        assert least - 1e-6 <= found.min() < least + 0.2 * (most - least)  # 120 uniform draws; float32 rounding
        assert most - 0.2 * (most - least) < found.max() <= most + 1e-6


def test_inputs_are_the_same_for_one_seed_and_differ_for_another():
    signature = small_model("fourier").signature
    case = shape_grid(signature)[0]
    first, again, other = (make_inputs(signature, case, None, seed)["pixel_values"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_case_is_shown_by_its_name_and_its_axes_in_order():
    assert str(Case("opt", {"batch": 1, "height": 8})) == "opt (batch 1, height 8)"


def test_second_frame_of_optical_flow_is_the_first_moved_by_a_pixel():
    signature = build_model(TASK_CONFIGS["optical_flow"]).signature
    case = Case("x", {"batch": 2, "height": 5, "width": 7})
    patches = make_inputs(signature, case, FlowPreprocessing())["patches"]
    centre = patches[:, :, 12:15]  # of 3 x 3 x RGB
    assert -1 <= patches.min() < -0.9 and 0.9 < patches.max() <= 1
    np.testing.assert_array_equal(centre[:, 1, :, :, 1:], centre[:, 0, :, :, :-1])


def adversarial(kind):
    model = small_model(kind)
    cases = {case.name: case for case in adversarial_cases(model.signature)}
    return {name: make_inputs(model.signature, case, model.config.preprocessing) for name, case in cases.items()}


def test_adversarial_images_are_zero_huge_tiny_and_of_one_value():
    inputs = {name: made["pixel_values"] for name, made in adversarial("fourier").items()}
    assert list(inputs) == ["zeros", "huge", "repeated", "tiny"]
    assert not inputs["zeros"].any()
    assert np.ptp(inputs["repeated"]) == 0 != inputs["repeated"].flat[0]
    np.testing.assert_allclose(inputs["huge"] * 1e-9, inputs["tiny"], rtol=1e-6)  # float32 rounding
    assert 1e3 < np.abs(inputs["huge"]).max() < 1e4
    assert all(array.dtype == np.float32 for array in inputs.values())


def test_adversarial_texts_stay_in_the_vocabulary_and_one_is_masked_altogether():
    inputs = adversarial("masked_lm")
    assert list(inputs) == ["zeros", "huge", "repeated", "all masked"]
    assert {name: set(made["input_ids"].flat) for name, made in inputs.items() if name in ("zeros", "huge")} == {
        "zeros": {0},
        "huge": {261},
    }
    assert len(set(inputs["repeated"]["input_ids"].flat)) == 1
    assert {name: made["attention_mask"].mean() for name, made in inputs.items()} == {
        "zeros": 1,
        "huge": 1,
        "repeated": 1,
        "all masked": 0,
    }
