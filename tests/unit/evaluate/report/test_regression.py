"""A benchmark beside an earlier one: what counts as worse, and what the noise hides."""

from __future__ import annotations

import pytest

from perceiver_deploy.errors import InputError
from perceiver_deploy.evaluate.report.regression import compare_reports, compare_suites
from tests.helpers.benchmark_reports import make_report, steady

EAGER, OURS = "eager fp32", "onnxruntime fp32"
BEFORE = make_report({EAGER: steady(0.01), OURS: steady(0.004, seed=1)})


def verdicts(now, before=BEFORE):
    """Verdict by figure of the candidate."""
    return {d.figure: d.verdict for d in compare_reports(before, now).differences if OURS in d.candidate}


def test_same_speed_on_a_machine_that_is_half_as_fast_is_no_regression():
    now = make_report({EAGER: steady(0.02, seed=2), OURS: steady(0.008, seed=3)})
    assert set(verdicts(now).values()) == {"same"}
    assert compare_reports(BEFORE, now).regressions == ()


def test_slower_candidate_is_a_regression_at_each_batch_size():
    now = make_report({EAGER: steady(0.01, seed=2), OURS: steady(0.005, seed=3)})
    found = verdicts(now)
    assert found["speed-up at batch 1, length 8"] == found["speed-up at batch 4, length 8"] == "worse"
    assert found["top-1 accuracy"] == "same"
    assert "2 of " in compare_reports(BEFORE, now).text()
    assert verdicts(BEFORE, now)["speed-up at batch 1, length 8"] == "better"


def test_slowdown_within_the_margin_of_two_runs_is_none():
    now = make_report({EAGER: steady(0.01, seed=2), OURS: steady(0.0042, seed=3)})
    assert verdicts(now)["speed-up at batch 1, length 8"] == "same"


def test_noise_is_said_where_it_hides_every_difference():
    now = make_report({EAGER: steady(0.01, spread=0.45, seed=2), OURS: steady(0.0042, spread=0.45, seed=3)})
    assert verdicts(now)["speed-up at batch 1, length 8"] == "too noisy"
    assert "too noisy to compare speed: no difference is significant" in compare_reports(BEFORE, now).text()


def test_slower_medians_with_fastest_runs_as_fast_as_before_are_noise():
    disturbed = steady(0.004, seed=3)
    disturbed[8:] = [4 * seconds for seconds in disturbed[8:]]
    now = make_report({EAGER: steady(0.01, seed=2), OURS: disturbed})
    assert verdicts(now)["speed-up at batch 1, length 8"] == "too noisy"


@pytest.mark.parametrize(("wrong", "verdict"), [(2, "same"), (8, "worse")])
def test_accuracy_is_compared_on_the_same_examples(wrong, verdict):
    hits = {EAGER: [1] * 40, OURS: [1] * 40}
    samples = {EAGER: steady(0.01), OURS: steady(0.004, seed=1)}
    now = make_report(samples, {**hits, OURS: [0] * wrong + [1] * (40 - wrong)})
    assert verdicts(now, make_report(samples, hits))["top-1 accuracy"] == verdict


def test_candidate_that_is_gone_is_a_regression_and_other_bundles_are_refused():
    now = make_report({EAGER: steady(0.01)})
    (gone,) = compare_reports(BEFORE, now).regressions
    assert (gone.candidate, gone.now) == (f"digits.bundle {OURS}", "not measured")
    other = now.model_copy(
        update={"measurements": tuple(m.model_copy(update={"bundle": "other"}) for m in now.measurements)}
    )
    with pytest.raises(InputError, match="no candidate of the same bundle"):
        compare_reports(BEFORE, other)


def test_other_versions_are_remarked():
    now = BEFORE.model_copy(
        update={"environment": {**BEFORE.environment, "packages": {"onnxruntime": "1.33.0"}, "processor": "other"}}
    )
    assert compare_reports(BEFORE, now).remarks == (
        "processor was tests and is other",
        "onnxruntime was 1.32.0 and is 1.33.0",
    )


def test_suites_are_compared_task_by_task_and_what_one_lacks_is_remarked():
    slower = make_report({"eager fp32": steady(0.01), "onnxruntime fp32": steady(0.008, seed=1)})
    comparison = compare_suites({"digits": make_report(), "flow": make_report()}, {"digits": slower, "bytes": slower})
    assert {d.figure for d in comparison.regressions} == {
        "speed-up at batch 1, length 8",
        "speed-up at batch 4, length 8",
    }
    assert comparison.remarks == ("bytes was not measured before", "flow was measured before and is not now")
