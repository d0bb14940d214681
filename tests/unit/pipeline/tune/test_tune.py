"""Tuning: what is measured, what is kept, and when `load` uses it.

Most tests open sessions in this process and make up their times, so that the choice is known.
"""

from __future__ import annotations

import logging
import re
import shutil

import numpy as np
import onnx
import pytest

from perceiver_deploy import RuntimeSettings, convert_bundle, load, tune_bundle
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.errors import MissingError, ParityError, PerceiverDeployError, UsageError
from perceiver_deploy.evaluate.accuracy.agreement import Sqnr
from perceiver_deploy.evaluate.accuracy.contract import Judgement
from perceiver_deploy.evaluate.accuracy.losses import Loss
from perceiver_deploy.pipeline.tune import tryout as candidates
from perceiver_deploy.pipeline.tune import tune as tuning
from perceiver_deploy.runtimes import tuned
from perceiver_deploy.runtimes.tuned import tuning_path
from tests.helpers.factories import image_inputs

INPUTS = image_inputs(2, 10, 12)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, one core, and no hint but f32, which not every processor has."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PERCEIVER_DEPLOY_CACHE", str(folder))
    monkeypatch.setattr(candidates, "usable_cores", lambda: 1)
    monkeypatch.setattr("perceiver_deploy.runtimes.cpu.openvino.native_hints", lambda: ["f32"])
    return folder


@pytest.fixture(scope="module")
def bundle(shared_bundle, tmp_path_factory):
    """The small Fourier model in fp32 and int8: READ ONLY."""
    path = tmp_path_factory.mktemp("tuned") / "tuned.bundle"
    shutil.copytree(shared_bundle("fourier"), path)
    calibration = path.parent / "calibration.npz"
    np.savez(calibration, **image_inputs(16, 10, 12))
    convert_bundle(path, calibration=calibration)
    return path


@pytest.fixture
def make_up_times(monkeypatch):
    """`make_up_times(seconds)`: what a way takes, always, or in each of the rounds where that is a list."""

    class LocalWorker:
        def __init__(self, name, threads):
            self.name = name
            self._session = name.open(threads)
            self.run = self._session.run
            self.close = self._session.close

    def replace(seconds):
        def rounds(way):
            found = seconds(way)
            return found if isinstance(found, list) else [found] * 10

        monkeypatch.setattr(candidates, "Worker", LocalWorker)
        monkeypatch.setattr(candidates.Tryout, "_time", lambda self, worker: rounds(worker.name)[0])
        monkeypatch.setattr(
            tuning, "time_round_robin", lambda workers, inputs, **kwargs: {w.name: rounds(w.name) for w in workers}
        )

    return replace


def prefer(runtime, variant):
    return lambda way: 1.0 if (way.runtime, way.variant) == (runtime, variant) else 1.5


def what_runs(session):
    return session.runtime, session.variant, session.settings.threads


def opened_by(bundle, **arguments):
    with load(bundle, **arguments) as session:
        return what_runs(session)


@pytest.mark.slow
def test_processes_measure_every_runtime_and_variant_and_load_uses_the_fastest(bundle):
    result = tune_bundle(bundle, seconds=20)
    ways = {(finding.runtime, finding.variant, finding.threads) for finding in result.findings}
    assert ways == {(runtime, variant, 1) for runtime in ("onnxruntime", "openvino") for variant in ("fp32", "int8")}
    assert {finding.state for finding in result.findings} <= {"ranked", "slow"}
    assert all(finding.first_seconds > 0 for finding in result.findings)
    ranked = [finding for finding in result.findings if finding.state == "ranked"]
    assert min(finding.times_fastest[0] for finding in ranked) <= 1 <= ranked[0].times_fastest[1]
    assert opened_by(bundle) == (result.findings[0].runtime, result.findings[0].variant, 1)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_load_runs_what_was_fastest(bundle, make_up_times, runtime, variant):
    make_up_times(prefer(runtime, variant))
    assert tune_bundle(bundle).chosen == f"{runtime} {variant}, 1 thread"
    with load(bundle) as session, load(bundle, runtime, variant=variant, threads=1) as wanted:
        assert what_runs(session) == what_runs(wanted) == (runtime, variant, 1)
        np.testing.assert_array_equal(session.run(INPUTS)["logits"], wanted.run(INPUTS)["logits"])


def test_what_is_asked_for_restricts_the_choice(bundle, make_up_times, monkeypatch):
    monkeypatch.setattr(candidates, "usable_cores", lambda: 2)
    make_up_times(lambda way: prefer("openvino", "int8")(way) / way.settings.threads)
    assert tune_bundle(bundle).chosen == "openvino int8, 2 threads"
    assert opened_by(bundle) == ("openvino", "int8", 2)
    assert opened_by(bundle, precision="int8") == ("openvino", "int8", 2)
    assert opened_by(bundle, threads=1) == ("openvino", "int8", 1)
    assert opened_by(bundle, variant="fp32")[1:] == ("fp32", 2)
    assert opened_by(bundle, threads=3) == ("onnxruntime", "fp32", 3)  # not measured
    assert opened_by(bundle, runtime="openvino") == ("openvino", "fp32", None)
    assert opened_by(bundle, settings=RuntimeSettings()) == ("onnxruntime", "fp32", None)


def test_a_bundle_that_was_not_tuned_runs_fp32_in_the_first_runtime(bundle):
    assert opened_by(bundle) == ("onnxruntime", "fp32", None)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("processor_kind", lambda: "another one", r"the processor was .* and is another one"),
        ("usable_cores", lambda: 77, r"there were \d+ cores to use and are 77"),
        ("installed_packages", lambda device: {"onnxruntime": "0.1"}, r"onnxruntime was \S+ and is 0\.1"),
        ("installed_packages", lambda device: {}, r"onnxruntime was \S+ and is not installed"),
    ],
)
def test_a_tuning_of_another_environment_is_ignored_with_the_reason(
    bundle, make_up_times, monkeypatch, caplog, name, value, reason
):
    make_up_times(prefer("openvino", "int8"))
    tune_bundle(bundle)
    monkeypatch.setattr(tuned, name, value)
    caplog.clear()  # of what tuning said
    with caplog.at_level(logging.WARNING, "perceiver_deploy"):
        assert opened_by(bundle) == ("onnxruntime", "fp32", None)
    (message,) = caplog.messages
    assert message.startswith(f"The tuning of {bundle} is ignored: ")
    assert message.endswith(f"Tune again with: perceiver-deploy tune {bundle}")
    assert re.search(reason, message)


def test_what_has_not_changed_is_not_measured_again(bundle, make_up_times, monkeypatch):
    make_up_times(prefer("openvino", "int8"))
    first = tune_bundle(bundle, batch=2)
    monkeypatch.setattr(tuning, "ways_to_run", lambda bundle: pytest.fail("measured again"))
    again = tune_bundle(bundle, batch=2, seconds=5)
    assert (first.measured, again.measured) == (True, False)
    assert (again.chosen, again.findings, again.sizes) == (first.chosen, first.findings, first.sizes)


@pytest.mark.parametrize("arguments", [{"again": True}, {"batch": 2}, {"sizes": {"width": 7}}, {"max_drop": "0.5"}])
def test_another_question_is_measured_again(bundle, make_up_times, arguments):
    make_up_times(prefer("openvino", "fp32"))
    tune_bundle(bundle)
    make_up_times(prefer("onnxruntime", "fp32"))
    result = tune_bundle(bundle, **arguments)
    assert (result.measured, result.chosen) == (True, "onnxruntime fp32, 1 thread")
    assert opened_by(bundle) == ("onnxruntime", "fp32", 1)


def test_an_environment_that_changed_is_measured_again_with_the_reason(bundle, make_up_times, monkeypatch, caplog):
    make_up_times(prefer("openvino", "fp32"))
    tune_bundle(bundle)
    monkeypatch.setattr(tuned, "installed_packages", lambda device: {"onnxruntime": "0.1"})
    make_up_times(prefer("onnxruntime", "fp32"))
    with caplog.at_level(logging.INFO, "perceiver_deploy"):
        assert tune_bundle(bundle).measured
    assert re.search(r"Measuring again: onnxruntime was \S+ and is 0\.1", caplog.text)
    assert opened_by(bundle) == ("onnxruntime", "fp32", 1)


def test_a_tuning_that_was_damaged_is_measured_again(bundle, make_up_times, caplog):
    make_up_times(prefer("openvino", "fp32"))
    path = tuning_path(Bundle.open(bundle).manifest)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{}")
    with caplog.at_level(logging.INFO, "perceiver_deploy"):
        assert tune_bundle(bundle).measured
    assert "All is measured again." in caplog.text
    assert opened_by(bundle) == ("openvino", "fp32", 1)


def test_the_warning_of_a_tuning_that_does_not_hold_has_the_command_that_was_used(
    bundle, make_up_times, monkeypatch, caplog
):
    make_up_times(prefer("openvino", "fp32"))
    tune_bundle(bundle, batch=3, sizes={"width": 7}, static_shapes=True, max_drop="1%")
    monkeypatch.setattr(tuned, "usable_cores", lambda: 77)
    with caplog.at_level(logging.WARNING, "perceiver_deploy"):
        load(bundle).close()
    command = f"perceiver-deploy tune {bundle} --batch 3 --size width=7 --static-shapes --max-drop 1%"
    assert caplog.text.rstrip().endswith(command)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"format": 1}'])
def test_a_tuning_that_cannot_be_read_is_ignored_with_a_warning(bundle, caplog, content):
    path = tuning_path(Bundle.open(bundle).manifest)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "perceiver_deploy"):
        assert opened_by(bundle) == ("onnxruntime", "fp32", None)
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert warning.startswith(f"The tuning {path} is damaged: ")
    assert "\n" not in warning


def test_a_bundle_that_changed_is_not_run_by_the_tuning_of_what_it_was(bundle, make_up_times, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy.bundle")
    make_up_times(prefer("openvino", "int8"))
    tune_bundle(copy)
    with changed_bundle(copy) as (staging, opened):
        staging.finish(opened.manifest.model_copy(update={"labels": tuple("vwxyz")}))
    assert opened_by(copy) == ("onnxruntime", "fp32", None)


def test_a_variant_whose_numbers_are_wrong_is_refused_and_not_chosen(bundle, make_up_times, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy.bundle")
    with changed_bundle(copy) as (staging, opened):
        wrong = opened.path / "onnx" / "fp32.onnx"
        graph = onnx.load(wrong)
        weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        weight.raw_data = (-np.frombuffer(weight.raw_data, np.float32)).tobytes()
        staging.path("onnx/int8.onnx").write_bytes(graph.SerializeToString())
        staging.finish(opened.manifest)
    make_up_times(lambda way: 1.0 if way.variant == "int8" else 1.5)
    result = tune_bundle(copy)
    refused = [finding for finding in result.findings if finding.state == "refused"]
    assert {finding.variant for finding in refused} == {"int8"}
    assert all("does not give the numbers of its own graph" in finding.reason for finding in refused)
    assert opened_by(copy)[1] == "fp32"


def test_nothing_within_its_bound_exits_3_and_keeps_nothing(bundle, make_up_times, monkeypatch, cache):
    monkeypatch.setattr(candidates, "error_bound", lambda precision, eager_error: (0.0, "none"))
    make_up_times(prefer("openvino", "int8"))
    with pytest.raises(ParityError, match=r"Nothing runs .* within its bounds\. onnxruntime fp32, 1 thread: logits at"):
        tune_bundle(bundle)
    assert not list(cache.rglob("tunings/*"))


def test_a_machine_too_noisy_to_rank_keeps_the_simplest_and_says_so(bundle, make_up_times):
    make_up_times(lambda way: [0.7, 0.7, 0.7, 0.7, 1.4, 1.4] if way.variant == "int8" else [1.0] * 6)
    result = tune_bundle(bundle)
    assert result.chosen == "onnxruntime fp32, 1 thread"
    assert result.remark.startswith("This machine is too noisy to rank: ")


def test_what_there_is_no_time_for_is_named(bundle, make_up_times):
    make_up_times(prefer("openvino", "int8"))
    result = tune_bundle(bundle, seconds=0)
    assert [finding.state for finding in result.findings] == ["ranked", *["not tried"] * 3]
    assert opened_by(bundle) == ("onnxruntime", "fp32", 1)


def test_a_way_that_takes_twice_the_best_time_is_not_ranked(bundle, make_up_times):
    make_up_times(lambda way: 1.0 if way.variant == "int8" else 2.1)
    states = {(finding.variant, finding.state) for finding in tune_bundle(bundle).findings}
    assert states == {("fp32", "slow"), ("int8", "ranked")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": {"depth": 3}}, r"There is no axis 'depth' to give a size; there is height, width\."),
        ({"sizes": {"batch": 3}}, "There is no axis 'batch' to give a size"),
        ({"sizes": {"width": 0}}, r"width is 0; expected at least 1\."),
        ({"batch": 0}, r"batch is 0; expected at least 1\."),
    ],
)
def test_a_size_that_the_bundle_cannot_take_exits_2(bundle, arguments, message):
    with pytest.raises(UsageError, match=message) as caught:
        tune_bundle(bundle, **arguments)
    assert caught.value.exit_code == 2


def test_the_sizes_that_were_asked_for_are_timed_and_told(bundle, make_up_times):
    make_up_times(prefer("onnxruntime", "fp32"))
    assert tune_bundle(bundle, batch=3, sizes={"width": 7}).sizes == {"batch": 3, "height": 10, "width": 7}


def test_no_runtime_exits_5_and_says_what_to_install(bundle, monkeypatch):
    monkeypatch.setattr(candidates, "installed_runtimes", lambda: [])
    with pytest.raises(MissingError, match=r"pip install 'perceiver-deploy\[cpu\]'") as caught:
        tune_bundle(bundle)
    assert caught.value.exit_code == 5


def test_a_single_way_is_measured_and_kept(shared_bundle, make_up_times, monkeypatch):
    monkeypatch.setattr(candidates, "installed_runtimes", lambda: ["openvino"])
    make_up_times(prefer("openvino", "fp32"))
    result = tune_bundle(shared_bundle("fourier"))
    assert [finding.state for finding in result.findings] == ["ranked"]
    assert opened_by(shared_bundle("fourier")) == ("openvino", "fp32", 1)


def test_a_cache_that_cannot_be_written_is_an_error_before_anything_is_measured(bundle, cache, monkeypatch):
    cache.write_text("a file is in the way")
    monkeypatch.setattr(tuning, "ways_to_run", lambda bundle: pytest.fail("work was begun"))
    with pytest.raises(PerceiverDeployError, match=r"which cannot be written: .* Set PERCEIVER_DEPLOY_CACHE to"):
        tune_bundle(bundle)


def test_static_shapes_are_measured_where_they_are_asked_for(bundle, make_up_times):
    make_up_times(lambda way: 1.0 if way.settings.static_shapes and way.variant == "fp32" else 1.5)
    assert not any(finding.static_shapes for finding in tune_bundle(bundle).findings)
    result = tune_bundle(bundle, static_shapes=True)
    assert result.chosen == "openvino fp32, static shapes, 1 thread"
    assert {(f.runtime, f.variant) for f in result.findings if f.static_shapes} == {
        ("openvino", "fp32"),
        ("openvino", "int8"),
    }
    with load(bundle) as session:
        assert session.settings == RuntimeSettings(threads=1, static_shapes=True)


def test_thread_counts_are_powers_of_two_and_all_cores():
    assert candidates._thread_counts(1) == [1]
    assert candidates._thread_counts(2) == [1, 2]
    assert candidates._thread_counts(6) == [1, 2, 4, 6]
    assert candidates._thread_counts(64) == [1, 2, 4, 8, 16, 32, 64]


@pytest.fixture
def stating(bundle, tmp_path):
    """`stating(contract)`: the bundle whose manifest has this contract for int8."""

    def make(contract):
        path = tmp_path / "stating.bundle"
        shutil.copytree(bundle, path)
        with changed_bundle(path) as (staging, opened):
            int8 = opened.variant("int8")
            recipe = int8.recipe.model_copy(update={"contract": contract})
            variants = {**opened.manifest.variants, "int8": int8.model_copy(update={"recipe": recipe})}
            staging.finish(opened.manifest.model_copy(update={"variants": variants}))
        return path

    return make


def lost(drop, sqnr_db=25.0):
    """That int8 lost `drop` in onnxruntime, with some SQNR."""
    accuracy = Loss("top-1 accuracy", "%", 0.9, 0.9 - drop, drop, (0.0, 0.0), 100, None)
    return {"after": Judgement({"onnxruntime": [accuracy, Sqnr("logits", sqnr_db)]}).to_json()}


def test_with_a_contract_only_what_the_manifest_says_was_kept_is_of_use(stating, make_up_times):
    make_up_times(prefer("onnxruntime", "int8"))
    result = tune_bundle(stating(lost(0.004)), max_drop="0.5")
    assert result.chosen.startswith("onnxruntime int8")
    reasons = {(f.runtime, f.variant): f.reason for f in result.findings if f.state == "refused"}
    assert list(reasons) == [("openvino", "int8")]
    assert "Nothing says that int8 with the hint f32 keeps max-drop 0.5 in openvino" in reasons["openvino", "int8"]


@pytest.mark.parametrize(
    ("contract", "problem"),
    [
        ({}, "there is no 'after'"),
        ("kept", "there is no 'after'"),
        ({"after": {"onnxruntime": [{"metric": 1}]}}, "onnxruntime.0.Loss.metric: Input should be a valid string"),
    ],
    ids=["no losses", "a text", "another form"],
)
def test_a_contract_that_was_edited_by_hand_is_refused_on_one_line(stating, make_up_times, contract, problem):
    make_up_times(prefer("onnxruntime", "int8"))
    result = tune_bundle(stating(contract), max_drop="0.5")
    assert "fp32" in result.chosen
    reasons = {f.reason for f in result.findings if (f.variant, f.state) == ("int8", "refused")}
    (reason,) = reasons
    assert "has a contract that convert did not write: " + problem in reason
    assert "\n" not in reason


def test_with_a_contract_a_variant_that_lost_more_is_refused(stating, make_up_times):
    make_up_times(prefer("onnxruntime", "int8"))
    result = tune_bundle(stating(lost(0.006, sqnr_db=12.0)), max_drop="0.5")
    assert "fp32" in result.chosen
    (reason,) = {f.reason for f in result.findings if (f.runtime, f.state) == ("onnxruntime", "refused")}
    assert "Beyond max-drop 0.5: top-1 accuracy 90.00 % -> 89.40 %, drop 0.60 points" in reason
    assert "; SQNR of logits against eager 12.0 dB (at least 20 dB for any max-drop) in onnxruntime" in reason


def test_with_data_a_contract_is_measured_here(bundle, make_up_times, tmp_path):
    make_up_times(prefer("openvino", "int8"))
    np.savez(tmp_path / "data.npz", **image_inputs(40, 10, 12, seed=5))
    strict = tune_bundle(bundle, max_drop="0", data=tmp_path / "data.npz")
    assert "fp32" in strict.chosen  # INT8 of random weights answers otherwise now and then
    reasons = [f.reason for f in strict.findings if f.state == "refused"]
    assert len(reasons) == 2
    assert all("Beyond max-drop 0: same top-1 of logits as eager" in reason for reason in reasons)
    assert tune_bundle(bundle, max_drop="100", data=tmp_path / "data.npz").chosen.startswith("openvino int8")


def test_data_that_changed_is_measured_again(bundle, make_up_times, tmp_path):
    make_up_times(prefer("openvino", "fp32"))
    path = tmp_path / "data.npz"
    for seed, measured in ((5, True), (5, False), (6, True)):
        np.savez(path, **image_inputs(4, 10, 12, seed=seed))
        assert tune_bundle(bundle, max_drop="100", data=path).measured == measured


def test_data_to_tune_on_without_a_contract_is_refused(bundle):
    with pytest.raises(UsageError, match="give max_drop too"):
        tune_bundle(bundle, data="digits")
