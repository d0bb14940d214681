"""The search for a mixed precision, on invented layers whose error is known."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.data.metrics import TOP1
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import BoundError, ExportError, MissingError
from perceiver_deploy.evaluate.accuracy.agreement import Sqnr
from perceiver_deploy.evaluate.accuracy.contract import Judgement, MaxDrop
from perceiver_deploy.evaluate.accuracy.losses import Loss
from perceiver_deploy.export.calibration.ranges import Ranges, TensorRange
from perceiver_deploy.pipeline.convert import trials as contract_trials
from perceiver_deploy.pipeline.convert.plan import Conversion, ConvertedStage
from perceiver_deploy.pipeline.convert.search import _key, _Search
from perceiver_deploy.pipeline.convert.trials import Findings, judging_runtimes
from perceiver_deploy.pipeline.samples.held_out import HeldOut
from perceiver_deploy.statistics import McNemar

NODES = {f"layer.{index}/MatMul{suffix}": f"layer.{index}" for index in range(8) for suffix in ("", "_1")}
ERRORS = {f"layer.{index}": error for index, error in enumerate([1, 5, 0.5, 9, 2, 0.1, 3, 0.2])}
HELD_OUT = HeldOut("/somewhere/rows.npz", Split({"x": np.zeros(1000)}, np.zeros(1000)), (TOP1,), "digest")


class Layers:
    """A stage whose file tells which nodes are in float32."""

    products = NODES | {"left/MatMul": "left"}

    def convert(self, target, keep=()):
        if not set(NODES) - set(keep):
            raise ExportError("nothing is quantised")
        target.write_text("\n".join(keep))
        return ConvertedStage(None, ["left/MatMul", *keep], None)


class InventedTrials:
    """Points that are lost are the sum of the errors of the layers that are not in float32."""

    def __init__(self, weights=ERRORS):
        self.weights, self.runs = weights, []

    def _lost(self, files):
        kept = {NODES[node] for node in files["full"].read_text().split()}
        self.runs.append(kept)
        return sum(error for layer, error in self.weights.items() if layer not in kept)

    def judge(self, files):
        lost = self._lost(files) / 100
        return Judgement({"onnxruntime": [Loss("top-1 accuracy", "%", 0.9, 0.9 - lost, lost, (0, 1), 1000, None)]})

    def sqnr(self, files):
        return 40 - self._lost(files)


@pytest.fixture
def search(tmp_path):
    def make(max_drop, trials=None):
        conversion = Conversion(
            variant="int8",
            precision="int8",
            runtimes=("onnxruntime",),
            data=None,
            stages={"full": Layers()},
            recipe={},
        )
        findings = Findings(tmp_path / "found.json")
        trials = trials or InventedTrials()
        return _Search(MaxDrop.parse(max_drop), HELD_OUT, conversion, trials, findings, tmp_path), trials

    return make


@pytest.mark.parametrize(
    ("max_drop", "returned"),
    [("20.8", 0), ("20", 1), ("10", 2), ("7", 2), ("6.7", 3), ("3", 4), ("0.8", 5), ("0.7", 6), ("0.1", 7)],
)
def test_the_fewest_layers_that_keep_the_contract_are_returned_the_most_sensitive_first(search, max_drop, returned):
    kept = search(max_drop)[0].run()
    by_error = sorted(ERRORS, key=ERRORS.__getitem__, reverse=True)
    assert kept.float32 == tuple(by_error[:returned])
    assert sorted(kept.keep.get("full", [])) == sorted(n for n, layer in NODES.items() if layer in kept.float32)
    assert not kept.after.breaches(kept.max_drop)
    assert kept.before.found["onnxruntime"][0].drop == pytest.approx(sum(ERRORS.values()) / 100)


def test_nothing_is_ranked_where_the_contract_is_kept_at_once(search):
    found, trials = search("50%")
    kept = found.run()
    assert (kept.attempts, kept.sqnr_db, trials.runs) == (1, {}, [set()])


def test_attempts_are_as_many_as_bisection_needs(search):
    kept = search("0.7")[0].run()
    assert kept.attempts == 7  # with 0, 1, 2, 4, 7 layers returned, then 5 and 6: one layer of the eight has to stay


def test_a_contract_that_is_never_kept_names_the_best_that_was_found(search):
    found, _ = search("0.05")
    with pytest.raises(
        BoundError, match=r"The best has 7 of 8 layers in float32 \(layer.3, .*drop 0.10 points"
    ) as error:
        found.run()
    assert error.value.exit_code == 4


def test_a_search_goes_on_where_a_killed_one_was(search):
    class Killed(InventedTrials):
        def sqnr(self, files):
            if len(self.runs) == 5:
                raise KeyboardInterrupt
            return super().sqnr(files)

    killed, trials = search("3", Killed())
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    again, rest = search("3")
    whole = again.run()
    # eight layers are ranked in both together; 0 layers are judged in the first, 1, 2, 4 and 3 in the second
    assert (len(trials.runs), len(rest.runs)) == (1 + 4, 4 + 4)
    assert whole.float32 == ("layer.3", "layer.1", "layer.6", "layer.4")


def test_outputs_that_lost_everything_are_found_again_and_are_null_in_json(tmp_path):
    path, lost = tmp_path / "found.json", (np.inf, np.inf)
    judged = Judgement({"onnxruntime": (Loss("top-1 accuracy", "%", 0.9, np.nan, np.inf, lost, 1000, None),)})
    Findings(path).judgement("judged", lambda: judged)
    (again,) = Findings(path).judgement("judged", lambda: pytest.fail("known")).found["onnxruntime"]
    assert (again.drop, again.interval) == (np.inf, lost)
    assert np.isnan(again.value)
    (document,) = judged.to_json()["onnxruntime"]
    assert (document["value"], document["drop"], document["interval"]) == (None, None, (None, None))
    assert document["eager"] == 0.9


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b"{}{}",
        b'{"step": 3.0}',
        b'{"sqnr_db": {"step": "high"}}',
        b'{"sqnr_db": {"step": [1, 2]}}',
        b'{"judged": {"step": {"onnxruntime": [{"metric": "top-1 accuracy"}]}}}',
        b'{"judged": {"step": 5}}',
    ],
)
def test_findings_that_cannot_be_read_are_made_again_with_a_warning(damage, tmp_path, caplog):
    path = tmp_path / "found.json"
    path.write_bytes(damage)
    found = Findings(path)
    assert found.sqnr("step", lambda: 3.0) == 3.0
    assert "cannot be used" in caplog.text
    assert "it begins again" in caplog.text
    assert Findings(path).sqnr("step", lambda: pytest.fail("known")) == 3.0


def test_findings_are_read_as_they_were_written(tmp_path):
    lost = Loss("top-1 accuracy", "%", 0.9, np.nan, np.inf, (np.inf, np.inf), 5, None)
    tested = Loss("top-1 accuracy", "%", 0.9, 0.1 + 0.2, 0.6, (0.5, 0.7), 5, McNemar(3, 1, 0.625))
    judged = Judgement({"onnxruntime": (tested, Sqnr("logits", -300.0)), "openvino": (lost,)})
    Findings(tmp_path / "found.json").judgement("step", lambda: judged)
    again = Findings(tmp_path / "found.json").judgement("step", lambda: pytest.fail("known"))
    assert repr(again) == repr(judged)  # a NaN is not equal to itself


def test_layers_are_returned_for_the_sqnr_of_scores_whatever_the_drop(search):
    class Scores(InventedTrials):
        def judge(self, files):
            return Judgement({"onnxruntime": [Sqnr("logits", 26 - self._lost(files))]})

    kept = search("100", Scores())[0].run()
    assert kept.float32 == ("layer.3", "layer.1", "layer.6")  # 20.8 dB are lost with all, 3.8 without these
    assert kept.to_recipe()["after"]["onnxruntime"] == [
        {"output": "logits", "sqnr_db": pytest.approx(22.2), "least_db": 20.0}
    ]
    assert "onnxruntime: SQNR of logits against eager 22.2 dB (at least 20 dB for any max-drop)" in kept.lines()


def test_the_manifest_says_what_was_lost_before_and_after_and_names_no_folder_of_this_machine(search):
    recipe = search("7")[0].run().to_recipe()
    assert recipe["held_out"] == {"name": "rows.npz", "sha256": "digest", "rows": 1000, "labels": True}
    assert (recipe["max_drop"], recipe["float32"]) == ("7", ["layer.3", "layer.1"])
    assert [recipe[when]["onnxruntime"][0]["drop"] for when in ("before", "after")] == [
        pytest.approx(0.208),
        pytest.approx(0.068),
    ]
    assert len(recipe["sqnr_db"]) == 8


def test_a_search_belongs_to_the_ranges_that_its_graphs_were_quantised_with(shared_bundle):
    bundle = Bundle.open(shared_bundle("fourier"))

    def key(threshold, tensor="latents"):
        tensors = {tensor: TensorRange(low=-1.0, high=1.0, threshold=threshold, lost=0.0)}
        ranges = Ranges(method="minmax", samples=8, graph_sha256="graph", data_sha256="data", tensors=tensors)
        conversion = Conversion(
            variant="int8",
            precision="int8",
            runtimes=("onnxruntime",),
            data=None,
            stages={},
            ranges={"full": ranges},
            recipe={"method": "minmax"},
        )
        return _key(HELD_OUT, conversion, bundle, ["onnxruntime"])

    assert key(1.0) == key(1.0)
    assert len({key(1.0), key(0.9), key(1.0, "inputs")}) == 3


def test_a_variant_for_nothing_here_is_judged_in_onnxruntime_if_that_reads_it(monkeypatch):
    monkeypatch.setattr(contract_trials, "installed_runtimes", lambda: ["onnxruntime"])
    assert judging_runtimes(("tensorrt", "tensorrt-rtx")) == ("onnxruntime",)
    with pytest.raises(MissingError, match="bf16 variant is judged in OpenVINO"):
        judging_runtimes(("openvino", "tensorrt"))
