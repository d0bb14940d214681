"""Tables in a terminal: no line beyond 100 columns, no word cut, one line a candidate."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from perceiver_deploy.cli import inspect, tune, validate
from perceiver_deploy.cli.benchmark import show_page, show_report
from perceiver_deploy.cli.tables import fill, make_table
from perceiver_deploy.evaluate.parity.verdicts import Figures, Verdict
from perceiver_deploy.evaluate.report.benchmark_document import (
    CandidateTimes,
    Comparison,
    Difference,
    LayerTimes,
    LeftOut,
)
from perceiver_deploy.evaluate.report.benchmark_page import layer_table
from perceiver_deploy.evaluate.report.suite_document import SuiteReport
from perceiver_deploy.evaluate.report.suite_page import page_of_suite
from perceiver_deploy.evaluate.report.terminal import suite_tables
from perceiver_deploy.pipeline.tune.tune import TuneResult
from perceiver_deploy.pipeline.validate.validate import ValidationResult
from perceiver_deploy.runtimes.tuned import Environment, Finding
from tests.helpers.benchmark_reports import make_report, steady

WIDE = ["onnxruntime int8-weights", "openvino int8-weights", "tensorrt-rtx int8-weights"]
MODALITIES = Path(__file__).parents[3] / "benchmarks" / "results" / "modalities.json"


def shown(show, width=100):
    """What is printed, as the command line prints it on a console of this width."""
    out = io.StringIO()
    show(Console(file=out, width=width, markup=False, highlight=False, soft_wrap=True))
    return out.getvalue()


def table_lines(text):
    """Lines of tables: their heads are underlined, and they end before an empty line."""
    lines = text.splitlines()
    found, inside = [], False
    for before, line in zip(["", *lines], lines, strict=False):
        if line.strip() and not line.strip().strip("─"):
            inside = True
            found.append(before)
        inside = inside and bool(line.strip())
        found += [line] if inside else []
    return found


def assert_fits(text, *words):
    lines = table_lines(text)
    assert lines
    assert max(map(len, lines)) <= 100
    assert "…" not in text
    for word in words:
        assert word in text.split()


def wide_report():
    samples = {"eager fp32": steady(0.01)} | {name: steady(0.004 + i / 1000) for i, name in enumerate(WIDE)}
    return make_report(samples, lengths=(8, 16))


@pytest.mark.parametrize("width", [40, 100, 120])
def test_benchmark_has_one_line_for_each_candidate_and_case(width):
    text = shown(lambda console: show_report(console, wide_report(), ["digits.bundle/reports/benchmark.json"]), width)
    assert_fits(text, "speed-up" if "speed-up" in text else "eager", "p50", "p99", "int8-weights")
    for name in ("eager fp32", *WIDE):
        # an accuracy table, 2 batches at 2 sizes, and start and size
        assert sum(line.strip().startswith(f"{name} ") for line in table_lines(text)) == 1 + 4 + 1


def test_benchmark_ends_with_the_recommendation_in_one_sentence():
    last = shown(lambda console: show_report(console, make_report(), ["benchmark.json"])).splitlines()[-1]
    assert last.startswith("Recommended for digits.bundle at batch 1, length 8: onnxruntime fp32 with 1 thread")
    assert last.endswith('load("digits.bundle", runtime="onnxruntime", variant="fp32", threads=1).')


def test_comparison_and_what_was_left_out_are_shown_without_cut_words():
    figures = [
        Difference(
            candidate=f"digits.bundle {name}",
            figure="peak memory at batch 32, height 224, width 224",
            before="152.34 MB",
            now="171.20 MB",
            verdict="too noisy",
        )
        for name in WIDE
    ]
    reason = "It is 1.2e-02 off what its graph gives."
    report = wide_report().model_copy(
        update={
            "comparison": Comparison(differences=tuple(figures), remarks=("numpy was 1 and is 2",)),
            "left_out": (LeftOut(bundle="a/digits.bundle", candidate="openvino int8", reason=reason),),
        }
    )
    text = shown(lambda console: show_report(console, report))
    assert_fits(text, "memory", "height", "noisy")
    assert f"openvino int8 of digits.bundle is left out. {reason}" in text


def test_layers_of_many_candidates_are_shown_in_parts_with_their_names():
    names = [
        "eager fp32",
        *(f"{runtime} {v}" for runtime in ("onnxruntime", "openvino") for v in ("fp32", "int8-weights")),
    ]
    times = tuple(
        CandidateTimes(candidate=f"{name} {i}", layers={"encoder.cross_attention.attention.projection": 0.5}, whole=0.6)
        for i, name in enumerate(names * 2)
    )
    table = layer_table(LayerTimes(bundle="digits.bundle", sizes={"batch": 1}, candidates=times))
    text = shown(lambda console: console.print(make_table(table.title, table.header, table.rows)))
    assert_fits(text, "int8-weights")
    assert sum("encoder.cross_attention.attention.projection" in line for line in table_lines(text)) > 1
    assert sum(line.split().count("500.000") for line in table_lines(text)) == 2 * len(times)  # and their sum


def test_suite_has_one_line_for_each_candidate_of_a_task_and_the_sentence_last():
    report = SuiteReport.read(MODALITIES)
    page = replace(page_of_suite(report), tables=tuple(suite_tables(report)))
    text = shown(lambda console: show_page(console, page))
    assert_fits(text, "films-autoencoding", "openvino", "bf16")
    lines = table_lines(text)
    assert sum("onnxruntime fp32" in line for line in lines) == len(report.tasks)
    assert text.splitlines()[-1].startswith("Recommended with 1 thread: onnxruntime fp32 for all tasks: ")


def finding(runtime="onnxruntime", variant="int8-weights", threads=2, state="ranked", **others):
    return Finding(
        runtime=runtime, variant=variant, hint="f32", static_shapes=False, threads=threads, state=state, **others
    )


def tuned(*findings):
    here = Environment(processor="tests", cores=2, packages={})
    sizes = {"batch": 1, "height": 224, "width": 224}
    return TuneResult("a b.bundle", str(findings[0]), True, findings, None, sizes, here, "kept.json", 1.0)


def test_tune_fits_and_says_why_and_how_to_get_it():
    ranked = finding(first_seconds=0.1, seconds=0.123, times_fastest=(1.0, 1.0))
    slower = finding("openvino", first_seconds=0.1, seconds=0.2, times_fastest=(1.5, 1.7))
    tied = finding("openvino", "fp32", first_seconds=0.1, seconds=0.1231, times_fastest=(0.99, 1.1))
    late = finding("openvino", threads=1, state="not tried")
    text = shown(lambda console: tune._show(console, tuned(ranked, slower, late)))
    assert_fits(text, "onnxruntime", "int8-weights", "ranked")
    last = text.splitlines()[-1]
    assert last.startswith(f"Chosen: {ranked}, 123.00 ms, the fastest of 2 that were ranked; it is kept in kept.json")
    assert 'load("a b.bundle") and run find it on this machine.' in last
    assert f"statistically tied with {tied} and the simplest of them" in tune._recommendation(
        tuned(ranked, tied, slower)
    )
    assert "the only one that was ranked" in tune._recommendation(tuned(ranked, late))


def verdict(error, case, *, variant="int8-weights", non_finite=0, stages="encoder + decoder"):
    figures = Figures(error, error, error, 1.0, 60.0, 0.99, non_finite)
    return Verdict(
        *("onnxruntime", variant, "int8-weights", case, "x [1]", "label_logits", figures, 0.1, 0.5, "rounding"),
        graph_error=1e-7,
        graph_bound=2e-7,
        stages=stages,
    )


def test_validate_shows_the_worst_case_of_each_candidate_and_all_that_fail():
    verdicts = (
        verdict(0.01, "odd, fully masked row"),
        verdict(0.09, "opt"),
        verdict(0.2, "adversarial, huge"),
        verdict(0.3, "adversarial, tiny", non_finite=3),
        verdict(0.01, "opt", variant="fp32", stages="full"),
        verdict(0.02, "odd", variant="fp32", stages="full"),
    )
    result = ValidationResult("b", "grid", verdicts, (), None, (), "parity.json")
    text = shown(lambda console: validate._show(console, result))
    assert_fits(text, "int8-weights,", "label_logits,", "FAIL")
    assert "the worst of 5 cases and all that fail" in text
    assert sum("FAIL" in line for line in table_lines(text)) == 2
    assert sum("pass" in line for line in table_lines(text)) == 1
    assert "3 NaN, Inf" in text
    assert "fully masked" not in text


def test_inspect_fits():
    attention = {
        "module": "encoder.self_attention.11.attention",
        "count": 26,
        "heads": 8,
        "qk_size": 128,
        "v_size": 160,
        "queries": 512,
        "keys": 50176,
        "mask": True,
        "flops": 123_456_789_012,
        "fuses": {"onnxruntime": "fused", "openvino": "fused", "tensorrt": "its head size is odd"},
    }
    module = {
        "module": "encoder.cross_attention.attention.query.projection",
        "flops": 123_456_789_012,
        "weight_bytes": 123_456_789,
        "activation_bytes": 1_234_567_890,
    }
    assert_fits(shown(lambda console: inspect._show_attentions(console, [attention])), "onnxruntime,", "50176")
    assert_fits(shown(lambda console: inspect._show_modules(console, [module])), module["module"])


def test_lists_are_filled_between_words_and_keep_their_indent():
    text = fill(f"  rewrites: {', '.join(f'no-ops removed {count}' for count in range(20))}")
    first, *others = text.splitlines()
    assert others
    assert max(map(len, (first, *others))) <= 100
    assert first.startswith("  rewrites: no-ops removed 0, ")
    assert all(line.startswith("    ") for line in others)
    assert text.split().count("no-ops") == 20


def test_a_word_that_is_longer_than_a_line_is_shown_whole():
    word = "x" * 130
    for width in (40, 100):
        text = shown(lambda console: console.print(make_table("title", ("a", "b"), [(word, "1"), ("c", "2")])), width)
        assert word in text
        assert "…" not in text


def test_texts_are_folded_between_words_and_figures_are_to_the_right():
    text = shown(lambda console: console.print(make_table("t", ("name", "n", "why"), [("a", "1", "some words " * 20)])))
    assert_fits(text)
    assert text.split().count("some") == 20
    assert make_table("empty", ("a", "b"), [])
    assert "empty" in shown(lambda console: console.print(make_table("empty", ("a", "b"), [])))
