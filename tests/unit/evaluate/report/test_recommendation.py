"""What a report recommends: the fastest that keeps accuracy, the simplest of those tied, and how to get it."""

from __future__ import annotations

from pathlib import Path

from perceiver_deploy.evaluate.report.benchmark_page import page_of_benchmark
from perceiver_deploy.evaluate.report.page import render_html, render_markdown
from perceiver_deploy.evaluate.report.recommendation import recommend, recommend_suite
from perceiver_deploy.evaluate.report.suite_document import SuiteReport, task_lines
from tests.helpers.benchmark_reports import make_report, steady

EAGER, FP32, INT8 = "eager fp32", "onnxruntime fp32", "openvino int8"
MODALITIES = Path(__file__).parents[4] / "benchmarks" / "results" / "modalities.json"


def samples(fp32=0.004, int8=0.002):
    return {EAGER: steady(0.01), FP32: steady(fp32, seed=1), INT8: steady(int8, seed=2)}


def losing(report, name, drop=0.02):
    """The report where one candidate lost more than chance explains."""

    def lost(measurement):
        metrics = tuple(
            m.model_copy(update={"drop": drop, "drop_interval": (drop, drop), "significant": True})
            for m in measurement.accuracy.metrics
        )
        accuracy = measurement.accuracy.model_copy(update={"metrics": metrics})
        return measurement.model_copy(update={"accuracy": accuracy})

    found = tuple(lost(m) if m.name == name else m for m in report.measurements)
    return report.model_copy(update={"measurements": found})


def threads(report, number):
    return report.model_copy(update={"settings": report.settings.model_copy(update={"threads": number})})


def test_fastest_is_recommended_with_its_threads_why_and_the_call_that_opens_it():
    (sentence,) = recommend(threads(make_report(samples()), 2))
    assert sentence == (
        "Recommended for digits.bundle at batch 1, length 8: openvino int8 with 2 threads, 5.00 (4.96 to 5.02) "
        "times as fast as eager, 2.00 ms, without a loss of accuracy on digits beyond chance; get it with "
        'load("digits.bundle", runtime="openvino", variant="int8", threads=2).'
    )


def test_one_that_loses_accuracy_is_passed_over_and_named():
    (sentence,) = recommend(losing(make_report(samples()), INT8))
    assert "length 8: onnxruntime fp32 with 1 thread, " in sentence
    assert ", slower than openvino int8, which loses 2.00 points of top-1 accuracy; get it" in sentence
    assert 'runtime="onnxruntime", variant="fp32"' in sentence


def test_one_that_lost_everything_is_passed_over_and_a_slow_one_is_not_named():
    (sentence,) = recommend(losing(make_report(samples()), INT8, drop=None))
    assert "onnxruntime fp32 with" in sentence
    assert "which loses everything of top-1 accuracy" in sentence
    (sentence,) = recommend(losing(make_report(samples(int8=0.008)), INT8))
    assert "loses" not in sentence


def test_gain_is_no_reason_to_pass_over():
    (sentence,) = recommend(losing(make_report(samples()), INT8, drop=-0.02))
    assert "openvino int8 with" in sentence


def test_simplest_of_those_that_are_tied_is_recommended():
    (sentence,) = recommend(make_report(samples(fp32=0.004, int8=0.00399)))
    assert "length 8: onnxruntime fp32 with" in sentence
    assert "statistically tied with openvino int8 and the simplest" in sentence
    assert "noisy" not in sentence


def test_noise_that_hides_the_fastest_is_said():
    noisy = {EAGER: steady(0.01, 0.45), FP32: steady(0.0098, 0.45, seed=1), INT8: steady(0.0095, 0.45, seed=2)}
    (sentence,) = recommend(make_report(noisy))
    assert "eager fp32 with" in sentence
    assert "on a machine that was too noisy to rank and the simplest" in sentence
    assert 'get it with load("digits.bundle", runtime="torch", threads=1).' in sentence


def test_without_data_or_threads_it_is_said_how_to_have_them():
    report = threads(make_report(samples()), None)
    bare = tuple(m.model_copy(update={"accuracy": None}) for m in report.measurements)
    (sentence,) = recommend(report.model_copy(update={"measurements": bare}))
    assert "accuracy was not measured (give --data)" in sentence
    assert "the runtime's own number of threads (perceiver-deploy tune digits.bundle measures others)" in sentence
    assert sentence.endswith('load("digits.bundle", runtime="openvino", variant="int8").')


def test_another_choice_at_another_batch_size_is_named():
    report = make_report(samples())
    slow = make_report(samples(int8=0.006))
    swapped = tuple(
        m.model_copy(update={"latencies": (m.latencies[0], other.latencies[1])})
        for m, other in zip(report.measurements, slow.measurements, strict=True)
    )
    (sentence,) = recommend(report.model_copy(update={"measurements": swapped}))
    assert "openvino int8 with 1 thread" in sentence
    assert "(but onnxruntime fp32 at batch 4, length 8); get it" in sentence


def test_each_bundle_has_its_sentence():
    one, two = make_report(samples()), make_report(samples(int8=0.006))
    renamed = two.model_copy(
        update={
            "measurements": tuple(m.model_copy(update={"bundle": "other.bundle"}) for m in two.measurements),
            "rankings": tuple(r.model_copy(update={"bundle": "other.bundle"}) for r in two.rankings),
        }
    )
    both = one.model_copy(
        update={
            "measurements": one.measurements + renamed.measurements,
            "rankings": one.rankings + renamed.rankings,
        }
    )
    first, second = recommend(both)
    assert "digits.bundle at" in first
    assert "other.bundle at batch 1, length 8: onnxruntime fp32" in second


def test_pages_show_the_recommendation():
    page = page_of_benchmark(make_report(samples()))
    assert page.recommendation == recommend(make_report(samples()))
    assert f"**{page.recommendation[0]}**" in render_markdown(page)
    assert "<strong>Recommended for digits.bundle at batch 1" in render_html(page)


def suite(**reports):
    tasks = tuple(task_lines(name, "image_classification", report, 1.0) for name, report in reports.items())
    return SuiteReport(environment={"threads": 1}, command="benchmark", batch=1, tasks=tasks, missing={})


def test_suite_names_the_best_way_of_each_task():
    good = make_report(samples())
    found = recommend_suite(suite(a=good, b=losing(good, INT8), c=good))
    assert found is not None
    assert found.startswith(
        "Recommended with 1 thread: openvino int8 for a, c; onnxruntime fp32 for b: each the fastest"
    )
    assert 'load("NAME/NAME.bundle", runtime=..., variant=...)' in found
    assert recommend_suite(suite()) is None


def test_suite_takes_the_simplest_where_intervals_meet_and_eager_where_nothing_is_faster():
    tied = make_report(samples(fp32=0.004, int8=0.00399))
    slow = make_report(samples(fp32=0.02, int8=0.03))
    found = recommend_suite(suite(tied=tied, slow=slow))
    assert found is not None
    assert "onnxruntime fp32 for tied; eager fp32 for slow" in found


def test_suite_that_was_published_is_read_and_has_its_sentence():
    found = recommend_suite(SuiteReport.read(MODALITIES))
    assert found is not None
    assert found.count(". ") == 0
