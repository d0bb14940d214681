"""Where the time goes: every layer of the model in every candidate, beside a run of the whole."""

from __future__ import annotations

import pytest

from perceiver_deploy import convert_bundle
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.errors import UsageError
from perceiver_deploy.evaluate.report.benchmark_page import layer_table
from perceiver_deploy.evaluate.report.plots import benchmark_plots
from perceiver_deploy.evaluate.speed import node_times
from perceiver_deploy.pipeline.benchmark.layer_errors import measure_layer_errors
from perceiver_deploy.pipeline.benchmark.module_times import time_modules
from perceiver_deploy.pipeline.export.export import export_model
from tests.conftest import named_model
from tests.helpers.benchmark_reports import make_report
from tests.helpers.factories import text_inputs


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(node_times, "_SECONDS", 0.1)


def test_time_is_of_the_layers_of_the_model_in_every_candidate(copied_bundle):
    path = copied_bundle("text_classification")
    convert_bundle(path, precision="fp16")
    found = time_modules(Bundle.open(path), threads=1)
    names = [times.candidate for times in found.candidates]
    assert names == ["eager fp32", "onnxruntime fp32", "openvino fp32", "onnxruntime fp16", "openvino fp16"]
    for times in found.candidates:
        assert {"encoder.cross_attention", "encoder.self_attends.0", "decoder.cross_attention"} <= times.layers.keys()
        assert all(seconds > 0 for seconds in times.layers.values())
        assert times.whole > 0
    eager = found.candidates[0]
    rows = {row[0]: row[1:] for row in layer_table(found).rows}
    assert float(rows["all layers"][0]) == pytest.approx(1000 * sum(eager.layers.values()), abs=1e-3)
    assert float(rows["a run without profiling"][1]) == pytest.approx(1000 * found.candidates[1].whole, abs=1e-3)


def test_errors_are_of_the_layers_of_variants_in_reduced_precision(copied_bundle):
    path = copied_bundle("text_classification")
    convert_bundle(path, precision="fp16")
    (errors,) = measure_layer_errors(Bundle.open(path), text_inputs(2, 11))
    assert errors.variant == "fp16"
    assert {"encoder.cross_attention", "encoder.self_attends.0", "decoder.cross_attention"} <= errors.sqnr_db.keys()
    assert all(40 < sqnr < 90 for sqnr in errors.sqnr_db.values())  # 2^-11 is 66 dB
    report = make_report().model_copy(
        update={"layer_errors": (errors,), "layer_times": (time_modules(Bundle.open(path), threads=1),)}
    )
    (plot,) = [plot for plot in benchmark_plots(report) if plot.name == "error_by_layer"]
    shown = [label.get_text() for label in plot.figure.axes[0].get_xticklabels()]
    assert sorted(shown) == sorted(errors.sqnr_db)
    assert shown.index("encoder.cross_attention") < shown.index("decoder.cross_attention")


def test_a_bundle_of_stages_alone_is_refused(tmp_path):
    export_model(named_model("text_classification"), tmp_path / "bundle", split="only", validate=False)
    with pytest.raises(UsageError, match="no graph of the whole model to time"):
        time_modules(Bundle.open(tmp_path / "bundle"))
