"""Metrics against values from the literature or computed by hand."""

import numpy as np
import pytest

from perceiver_deploy.data.metrics import TOP1, Metric, collect_outputs, measure
from perceiver_deploy.data.sets.digits import load_digits
from perceiver_deploy.data.split import Split
from perceiver_deploy.statistics import bootstrap_interval, wilson_interval


def split(targets, **inputs):
    return Split(inputs, np.asarray(targets))


def test_top1_counts_rows_whose_largest_entry_is_the_target():
    outputs = {"logits": np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])}
    (top1,) = measure(outputs, split([1, 1, 1]), [TOP1])
    assert (top1.value, top1.examples) == (pytest.approx(2 / 3), 3)
    assert top1.interval == pytest.approx(wilson_interval(2 / 3, 3))
    assert top1.text() == "66.67 %"


def test_examples_whose_score_is_nan_do_not_count():
    metric = Metric("error", "px", False, lambda outputs, inputs, targets: outputs["x"] - targets)
    (error,) = measure({"x": np.array([1.0, 5.0, np.nan])}, split([0.0, 0.0, 0.0]), [metric])
    assert (error.value, error.examples, error.text()) == (3.0, 2, "3.000 px")


def test_bootstrap_interval_of_a_large_sample_is_that_of_the_normal_distribution():
    scores = np.random.default_rng(1).normal(3.0, 2.0, 2000)
    spread = 1.96 * scores.std() / np.sqrt(len(scores))
    low, high = bootstrap_interval(scores)
    # ten thousand resamples place a 2.5 % quantile to about 3 % of the spread
    assert (low, high) == pytest.approx((scores.mean() - spread, scores.mean() + spread), abs=0.1 * spread)


def test_outputs_are_collected_in_batches_in_order_with_the_shared_inputs_unsplit():
    data = Split({"x": np.arange(70.0)}, np.zeros(70), {"factor": np.array([2.0])})
    outputs = collect_outputs(lambda inputs: {"y": inputs["x"] * inputs["factor"]}, data)
    np.testing.assert_array_equal(outputs["y"], 2 * np.arange(70.0))


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_newcombes_table(hits, count, low, high):
    assert wilson_interval(hits / count, count) == pytest.approx((low, high), abs=5e-5)


def test_digits_are_split_without_overlap_and_always_the_same():
    first, second = load_digits(), load_digits()
    assert (len(first.train), len(first.test)) == (1347, 450)
    np.testing.assert_array_equal(first.test.inputs["pixel_values"], second.test.inputs["pixel_values"])
    rows = [split.inputs["pixel_values"].reshape(len(split), -1) for split in (first.train, first.test)]
    assert not {row.tobytes() for row in rows[0]} & {row.tobytes() for row in rows[1]}
