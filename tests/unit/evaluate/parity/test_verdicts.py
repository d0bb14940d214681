import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_deploy.bundle.manifest import Stage, TensorSpec
from perceiver_deploy.bundle.samples import Sample, load_sample
from perceiver_deploy.errors import BundleError, PerceiverDeployError
from perceiver_deploy.evaluate.parity.verdicts import (
    BOUNDS,
    Candidate,
    Figures,
    Verdict,
    compare,
    error_bound,
    failure_text,
    judge,
)
from perceiver_deploy.runtimes.session import Session

EXACT = 1e-15  # a handful of float64 roundings


def arrays(*values):
    return tuple(np.array(value, np.float64) for value in values)


# Figures


def test_figures_of_a_known_pair():
    found, reference = arrays([[3.0, 4.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 4.0]])
    figures = compare(found, reference)
    assert figures.max_abs == 4
    assert figures.relative_l2 == pytest.approx(5 / 5, abs=EXACT)  # |(0,4,0,-3)| / |(3,0,0,4)|
    assert figures.cosine == pytest.approx((9 + 4) / (math.sqrt(26) * 5), abs=EXACT)
    assert figures.sqnr_db == pytest.approx(0, abs=1e-14)
    assert figures.top1 == 0.5  # rows: 1 for 0, 1 for 1
    assert figures.non_finite == 0
    # rows are off by 4 of 3 and by 3 of 4; their norms' root mean square is sqrt(12.5)
    assert figures.worst_row == pytest.approx(4 / math.sqrt(12.5), abs=EXACT)


def test_worst_row_shows_what_the_whole_hides():
    reference = np.ones((1, 10_000, 4))
    found = reference.copy()
    found[0, 77] *= 1.5
    figures = compare(found, reference)
    assert figures.relative_l2 == pytest.approx(0.5 / 100)  # one row of 10,000
    assert figures.worst_row == pytest.approx(0.5)


def test_a_row_near_zero_is_measured_against_the_others():
    figures = compare(*arrays([[1.0, 0.0], [1e-9, 0.0]], [[1.0, 0.0], [0.0, 0.0]]))
    assert figures.worst_row == pytest.approx(1e-9 * math.sqrt(2))  # not infinite
    assert compare(*arrays([0.0, 3.0], [0.0, 4.0])).worst_row == pytest.approx(1 / 4)  # no rows: all is one


def test_sqnr_is_20_db_for_an_error_of_a_tenth():
    assert compare(*arrays([[1.1, 0.0]], [[1.0, 0.0]])).sqnr_db == pytest.approx(20, abs=1e-12)


def test_sqnr_of_an_error_without_a_signal_is_the_least_there_is():
    assert compare(*arrays([[0.1, 0.0]], [[0.0, 0.0]])).sqnr_db == -np.inf


def test_equal_outputs_have_no_error():
    figures = compare(*arrays([[1.0, 2.0]], [[1.0, 2.0]]))
    assert (figures.max_abs, figures.relative_l2, figures.top1, figures.sqnr_db) == (0, 0, 1, np.inf)
    assert figures.cosine == pytest.approx(1, abs=EXACT)


def test_a_zero_reference_makes_the_error_absolute():
    figures = compare(*arrays([[3.0, 4.0]], [[0.0, 0.0]]))
    assert figures.relative_l2 == 5
    assert figures.cosine == 0
    equal = compare(*arrays([[0.0, 0.0]], [[0.0, 0.0]]))
    assert (equal.relative_l2, equal.cosine) == (0, 1)


def test_float32_results_are_compared_in_float64():
    reference = np.array([[1.0, 1e-9]])
    assert compare(reference.astype(np.float32), reference).max_abs == pytest.approx(0, abs=1e-15)
    large = np.full((1, 4), 3e38, np.float32)  # its norm overflows float32
    assert compare(large, large.astype(np.float64) * 1.5).relative_l2 == pytest.approx(1 / 3, abs=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_and_make_the_error_infinite(bad):
    figures = compare(*arrays([[bad, 1.0, bad]], [[1.0, 1.0, 1.0]]))
    assert figures.non_finite == 2
    assert figures.relative_l2 == np.inf


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_top1_is_left_out_where_there_is_nothing_to_choose_from(shape):
    assert compare(np.ones(shape), np.ones(shape)).top1 is None


def test_different_shapes_cannot_be_compared():
    with pytest.raises(ValueError, match=r"\(1, 2\) cannot be compared with \(2, 1\)"):
        compare(np.zeros((1, 2)), np.zeros((2, 1)))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6), st.floats(0.1, 10))
def test_relative_l2_does_not_depend_on_the_scale(values, scale):
    reference = np.array([[*values, 1.0]])
    error = compare(reference + 0.5, reference).relative_l2
    assert compare(scale * (reference + 0.5), scale * reference).relative_l2 == pytest.approx(error, rel=1e-9)


# Bounds and verdicts


class Fixed(Session):
    """Gives the same output whatever it is fed."""

    runtime, device = "fixed", "cpu"

    def __init__(self, output):
        spec = TensorSpec(name="x", dtype="float32", shape=(1,))
        gives = TensorSpec(name="y", dtype="float32", shape=("any",) * np.ndim(output))
        super().__init__(Stage(inputs=(spec,), outputs=(gives,)), {})
        self.output = output

    def _execute(self, inputs):
        return {"y": self.output}

    def _release(self):
        pass


def verdict(output, *, eager=(1.0, 2.0), reference=(1.0, 2.0), precision="fp32"):
    sample = Sample(
        "opt",
        {"x": np.zeros(1, np.float32)},
        {"y": np.array([reference])},
        {"y": np.array([eager], np.float32)},
    )
    (found,) = judge([Candidate(Fixed(np.array([output], np.float32)), "v", precision)], sample)
    return found


def test_fp32_is_held_to_the_floor_where_eager_is_exact():
    found = verdict((1.0, 2.0))
    assert found.bound == 1e-6
    assert "floor" in found.bound_reason
    assert found.passed


def test_fp32_is_held_to_ten_times_the_error_of_eager():
    eager = (1.0, 2.0 + 1e-4 * math.sqrt(5))  # relative L2 of 1e-4, up to float32's rounding of 2 (2.4e-7)
    found = verdict((1.0, 2.0), eager=eager)
    assert found.bound == pytest.approx(1e-3, rel=2e-3)
    assert "10 x eager" in found.bound_reason


@pytest.mark.parametrize(("share", "passes"), [(0.9, True), (1.1, False)])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_an_output_passes_up_to_its_bound_and_not_beyond(precision, share, passes):
    eager = (1.0, 2.0 + (1e-4 if precision == "fp32" else 1e-7) * math.sqrt(5))
    bound = BOUNDS.get(precision, 1e-3)
    found = verdict((1.0, 2.0 + share * bound * math.sqrt(5)), eager=eager, precision=precision)
    assert found.bound == pytest.approx(bound, rel=2e-3)
    assert found.passed is passes


@pytest.mark.parametrize(
    ("precision", "eager_error", "bound"),
    [("fp16", 1e-5, 2**13 * 1e-5), ("bf16", 5e-6, 2**16 * 5e-6), ("bf16", 1e-4, 0.5), ("int8", 1e-4, 0.5)],
)
def test_where_eager_float32_loses_much_half_precision_may_lose_as_many_of_its_own_roundings(
    precision, eager_error, bound
):
    found, reason = error_bound(precision, eager_error)
    assert found == pytest.approx(bound)
    assert ("eager float32's own" in reason) == (precision != "int8")


def test_bounds_widen_from_fp16_to_int8():
    assert 1e-6 < BOUNDS["fp16"] < BOUNDS["bf16"] < BOUNDS["int8"] < 1


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_output_that_is_not_finite_never_passes(precision, bad):
    assert not verdict((1.0, bad), precision=precision).passed


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nothing_passes_against_a_reference_that_is_not_finite(precision):
    assert not verdict((1.0, 2.0), reference=(1.0, np.nan), precision=precision).passed


@pytest.mark.parametrize("eager", [np.nan, np.inf])
def test_an_eager_float32_that_overflows_does_not_excuse_a_wrong_output(eager):
    assert not verdict((1e6, -7.0), eager=(1.0, eager)).passed


def test_an_output_of_another_shape_has_not_passed():
    sample = Sample("odd", {"x": np.zeros(1, np.float32)}, {"y": np.ones((2, 2))}, {"y": np.ones((2, 2), np.float32)})
    (found,) = judge([Candidate(Fixed(np.ones((2, 3), np.float32)), "v", "fp32")], sample)
    assert not found.passed
    assert "shape (2, 3)" in failure_text([found])


def test_a_session_that_fails_has_not_passed_and_says_why():
    class Failing(Fixed):
        def _execute(self, inputs):
            raise PerceiverDeployError("out of order")

    sample = Sample("odd", {"x": np.zeros(1, np.float32)}, {"y": np.ones((1, 2))}, {"y": np.ones((1, 2), np.float32)})
    (found,) = judge([Candidate(Failing(None), "v", "fp32")], sample)
    assert not found.passed
    assert "out of order" in failure_text([found])
    json.dumps(found.to_json(), allow_nan=False)


def test_a_figure_that_is_not_a_number_never_passes():
    figures = Figures(0.0, math.nan, 0.0, 1.0, 0.0, None, 0)
    assert not Verdict("r", "v", "fp32", "c", "s", "o", figures, 1.0, 1.0, "b").passed
    for bounds in ((math.nan, 1.0), (1.0, math.nan)):
        figures = Figures(0.0, 0.0, 0.0, 1.0, 0.0, None, 0)
        assert not Verdict("r", "v", "fp32", "c", "s", "o", figures, *bounds, "b").passed


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_one_lost_row_of_many_fails_though_the_whole_is_within_its_bound(precision):
    reference = np.ones((1, 100_000, 2))
    found = reference.astype(np.float32)
    found[0, 5] = -1 if precision == "int8" else 0
    eager = (reference * (1 + 1e-3)).astype(np.float32)  # so that fp32's bound on the whole is 1e-2
    sample = Sample("opt", {"x": np.zeros(1, np.float32)}, {"y": reference}, {"y": eager})
    (judged,) = judge([Candidate(Fixed(found), "v", precision)], sample)
    assert judged.figures.relative_l2 <= judged.bound
    assert judged.figures.worst_row > judged.row_bound
    assert not judged.passed


def test_int8_is_asked_for_finite_values_only_where_inputs_are_out_of_range():
    sample = Sample("huge", {"x": np.zeros(1, np.float32)}, {"y": np.ones((1, 2))}, {"y": np.ones((1, 2), np.float32)})
    clipped, broken = np.zeros((1, 2), np.float32), np.full((1, 2), np.nan, np.float32)
    passed = {
        precision: [judge([Candidate(Fixed(output), "v", precision)], sample)[0].passed for output in (clipped, broken)]
        for precision in ("int8", "fp16", "fp32")
    }
    assert passed == {"int8": [True, False], "fp16": [False, False], "fp32": [False, False]}


@pytest.mark.parametrize("output", [(1.0, 2.0), (1.0, 2.5), (1.0, np.nan)], ids=["equal", "off", "NaN"])
def test_verdicts_are_written_as_strict_json(output):
    document = json.loads(json.dumps(verdict(output).to_json(), allow_nan=False))
    assert document["passed"] is (output == (1.0, 2.0))
    assert document["case"] == "opt"


def test_judge_gives_a_verdict_for_each_candidate_and_output():
    sample = Sample(
        "odd",
        {"x": np.zeros(1, np.float32)},
        {"y": np.ones((1, 2))},
        {"y": np.ones((1, 2), np.float32)},
    )
    good, bad = Fixed(np.ones((1, 2), np.float32)), Fixed(np.zeros((1, 2), np.float32))
    verdicts = judge([Candidate(good, "fp32", "fp32"), Candidate(bad, "int8", "int8")], sample)
    assert [(found.variant, found.passed) for found in verdicts] == [("fp32", True), ("int8", False)]
    assert {found.sizes for found in verdicts} == {"x [1]"}


def test_failure_text_is_one_paragraph_on_the_worst():
    failed = [verdict((1.0, 2.01)), verdict((1.0, 3.0)), verdict((1.0, 2.0))]
    text = failure_text(failed)
    assert "failed in 2 of 3 comparisons" in text
    assert f"relative L2 {1 / math.sqrt(5):.2e}" in text
    assert "'y' of variant v in fixed at case 'opt' (x [1])" in text
    assert "\n" not in text


# Samples


def test_sample_survives_saving_bit_by_bit(tmp_path):
    rng = np.random.default_rng(0)
    sample = Sample(
        "odd, half",
        {"input.with.dots": rng.integers(0, 9, (2, 3))},
        {"y": rng.standard_normal((2, 3))},
        {"y": rng.standard_normal((2, 3)).astype(np.float32)},
    )
    sample.save(tmp_path / "a.npz")
    loaded = load_sample(tmp_path / "a.npz")
    assert loaded.name == sample.name
    for group in ("inputs", "float64", "float32"):
        found, expected = getattr(loaded, group), getattr(sample, group)
        assert found.keys() == expected.keys()
        for name in expected:
            assert found[name].dtype == expected[name].dtype
            assert np.array_equal(found[name], expected[name])


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"], ids=["empty", "text", "cut off"])
def test_a_file_that_is_no_sample_is_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(BundleError, match=r"a\.npz is not a golden sample"):
        load_sample(tmp_path / "a.npz")


def test_a_sample_with_pickled_objects_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", name=np.array("x"), **{"inputs.x": np.array([{}], dtype=object)})
    with pytest.raises(BundleError, match="not a golden sample"):
        load_sample(tmp_path / "a.npz")


def test_an_archive_of_other_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **{"weights.x": np.zeros(1), "name": np.array("x")})
    with pytest.raises(BundleError, match="not a golden sample"):
        load_sample(tmp_path / "a.npz")
