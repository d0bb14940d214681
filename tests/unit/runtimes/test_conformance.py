"""What `load` asks of a variant in a runtime, what is kept of the answer, and what is refused."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from perceiver_deploy import cache as cache_module
from perceiver_deploy import convert_bundle, export_model, load, validate_bundle
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle, sha256
from perceiver_deploy.bundle.samples import load_sample, read_groups
from perceiver_deploy.errors import BundleError, InputError, ParityError
from perceiver_deploy.pipeline.inspect import inspect_path
from perceiver_deploy.runtimes import conformance
from perceiver_deploy.runtimes.cpu.onnxruntime import OnnxRuntimeSession
from perceiver_deploy.runtimes.settings import RuntimeSettings
from tests.helpers.task_factories import named_model

SAMPLE = "samples/opt.npz"
EXACT = "exact/int8/opt.npz"


@pytest.fixture(scope="module")
def converted(shared_bundle, tmp_path_factory):
    """A bundle with `int8` and `int8-weights`: do not change it."""
    path = tmp_path_factory.mktemp("conformance") / "bundle"
    shutil.copytree(shared_bundle("fourier"), path)
    pixels = np.random.default_rng(0).standard_normal((8, 3, 10, 12)).astype(np.float32)
    np.savez(path.parent / "data.npz", pixel_values=pixels)
    convert_bundle(path, calibration=path.parent / "data.npz")
    convert_bundle(path, precision="int8-weights")
    return path


@pytest.fixture
def bundle(converted, tmp_path):
    return shutil.copytree(converted, tmp_path / "bundle")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "cache_directory", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def verdicts(cache):
    return sorted((cache / "conformance").glob("*.json"))


def replace(bundle, file, **arrays):
    """Write other arrays into an .npz file of a bundle, with digests that say nothing of it, as an attacker would."""
    with changed_bundle(bundle) as (staging, opened):
        with np.load(opened.file(file)) as found:
            content = {**found, **arrays}
        np.savez(staging.path(file), **content)
        staging.finish(opened.manifest)


def spoil(bundle):
    replace(bundle, EXACT, **{"full.logits": read_groups(bundle / EXACT)["full"]["logits"] + np.float32(5)})


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("variant", ["fp32", "int8", "int8-weights"])
def test_a_variant_that_conforms_is_asked_once(bundle, runtime, variant, own_cache, monkeypatch):
    with load(bundle, runtime=runtime, variant=variant) as session:
        assert session.conforms is True
    assert len(verdicts(own_cache)) == 1
    monkeypatch.setattr(conformance, "compare_with_graph", lambda *_: pytest.fail("asked again"))
    with load(bundle, runtime=runtime, variant=variant) as session:
        assert session.conforms is True
    assert "conforms: output 'logits'" in inspect_path(bundle).conformance[variant][runtime]


def test_what_another_processor_library_or_precision_answered_is_not_taken_over(bundle, own_cache, monkeypatch):
    load(bundle, runtime="openvino", variant="int8").close()
    load(bundle, runtime="openvino", variant="int8", settings=RuntimeSettings(static_shapes=True)).close()
    monkeypatch.setattr(conformance, "processor_kind", lambda: "another one")
    load(bundle, runtime="openvino", variant="int8").close()
    monkeypatch.setattr(conformance, "installed_packages", lambda: {"openvino": "0.0"})
    load(bundle, runtime="openvino", variant="int8").close()
    assert len(verdicts(own_cache)) == 4


def test_a_damaged_verdict_is_measured_again(bundle, own_cache):
    load(bundle, runtime="onnxruntime", variant="int8").close()
    (path,) = verdicts(own_cache)
    for content in ("", "{}", '{"conforms": "maybe"}', "[1"):
        path.write_text(content, encoding="utf-8")
        with load(bundle, runtime="onnxruntime", variant="int8") as session:
            assert session.conforms is True
        assert json.loads(path.read_text(encoding="utf-8"))["conforms"] is True


def test_a_cache_that_cannot_be_written_only_costs_the_check(bundle, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(cache_module, "cache_directory", lambda: tmp_path / "file")
    with load(bundle, runtime="onnxruntime", variant="int8") as session:
        assert session.conforms is True


def test_other_numbers_are_refused_with_what_was_seen_and_what_to_do(bundle, own_cache):
    spoil(bundle)
    for _ in range(2):  # measured, then kept
        with pytest.raises(ParityError) as refused:
            load(bundle, runtime="onnxruntime", variant="int8")
        text = str(refused.value)
        assert text.startswith("Variant 'int8' in onnxruntime ")
        for part in ("output 'logits' of the golden sample 'opt' is off by", "rounding allows", "allow_nonconforming"):
            assert part in text
    assert refused.value.exit_code == 3
    with load(bundle, runtime="onnxruntime", variant="int8", allow_nonconforming=True) as session:
        assert session.conforms is False
    assert inspect_path(bundle).conformance["int8"]["onnxruntime"].startswith("does not conform")
    assert len(verdicts(own_cache)) == 1


def test_auto_goes_on_to_a_runtime_that_conforms(bundle, caplog, monkeypatch):
    measured = conformance.compare_with_graph

    def only_openvino(expected, run, allowance):
        wrong = run.__self__.runtime == "onnxruntime"
        return measured(expected, run, allowance).model_copy(update={"conforms": not wrong})

    monkeypatch.setattr(conformance, "compare_with_graph", only_openvino)
    with caplog.at_level(logging.WARNING), load(bundle, variant="int8") as session:
        assert session.runtime == "openvino"
    assert "The next runtime is tried" in caplog.text
    monkeypatch.setattr(
        conformance, "compare_with_graph", lambda *_: measured(*_).model_copy(update={"conforms": False})
    )
    (cache_module.cache_directory() / "conformance").rename(cache_module.cache_directory() / "away")
    with pytest.raises(ParityError, match="in openvino"):
        load(bundle, variant="int8")


def test_outputs_that_are_not_finite_or_of_another_shape_do_not_conform(bundle):
    expected = conformance.expected_outputs(Bundle.open(bundle), "int8", "full", SAMPLE)
    logits = expected.outputs["logits"]
    for wrong in (np.full_like(logits, np.nan), logits[None], np.where(logits > 0, np.inf, logits)):
        verdict = conformance.compare_with_graph(expected, lambda inputs, wrong=wrong: {"logits": wrong})
        assert not verdict.conforms
        assert verdict.distance is None
        assert "is not finite" in verdict.text()


def test_a_lower_precision_is_allowed_what_it_costs_and_no_more(bundle):
    expected = conformance.expected_outputs(Bundle.open(bundle), "fp32", "full", SAMPLE)
    for factor, conforms in ((1.05, True), (1.2, False)):
        run = lambda inputs, factor=factor: {"logits": expected.outputs["logits"] * factor}  # noqa: E731
        assert conformance.compare_with_graph(expected, run, 0.08).conforms is conforms
        assert not conformance.compare_with_graph(expected, run).conforms


def test_a_golden_sample_that_was_changed_is_refused_by_its_digest(bundle):
    for file in (SAMPLE, EXACT):
        original = (bundle / file).read_bytes()
        (bundle / file).write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        with pytest.raises(BundleError, match="was changed after the bundle was written"):
            load(bundle, runtime="onnxruntime", variant="int8")
        (bundle / file).write_bytes(original)


def test_exact_outputs_of_something_else_are_refused(bundle):
    replace(bundle, EXACT, **{"full.other": np.zeros(3, np.float32)})
    with pytest.raises(BundleError, match=r"does not hold what int8 gives by full.*--add-exact"):
        load(bundle, runtime="onnxruntime", variant="int8")


def without_exact(bundle):
    """The bundle as versions before exact outputs wrote it, with compressed samples."""
    with changed_bundle(bundle) as (staging, opened):
        for file in opened.manifest.files:
            if file.startswith("exact/"):
                staging.remove(file)
        for file in opened.samples():
            with np.load(opened.file(file)) as found:
                content = dict(found)
            np.savez_compressed(staging.path(file), **content)
        staging.finish(opened.manifest)


def test_a_bundle_without_exact_outputs_works_and_says_how_to_add_them(bundle, caplog):
    exact = read_groups(bundle / EXACT)
    without_exact(bundle)
    with caplog.at_level(logging.WARNING), load(bundle, runtime="onnxruntime", variant="int8") as session:
        assert session.conforms is None
        assert session.run(load_sample(bundle / SAMPLE).inputs)["logits"].shape == (1, 5)
    assert f"perceiver-deploy validate {bundle} --add-exact" in caplog.text
    assert inspect_path(bundle).conformance["int8"]["onnxruntime"].startswith("unknown")
    with load(bundle, runtime="onnxruntime", variant="fp32") as session:
        assert session.conforms is True  # eager says what fp32 is to give
    assert all(v.conforms is None for v in validate_bundle(bundle, golden=True, threads=1).verdicts)
    result = validate_bundle(bundle, golden=True, add_exact=True, threads=1)
    assert result.passed
    reduced = [verdict for verdict in result.verdicts if verdict.precision != "fp32"]
    assert reduced
    assert all(verdict.conforms for verdict in reduced)
    added = read_groups(bundle / EXACT)
    assert added["full"]["logits"] == pytest.approx(exact["full"]["logits"], rel=1e-5)
    assert added["full_bound"]["logits"] == pytest.approx(exact["full_bound"]["logits"], rel=0.5)
    digest = sha256(bundle / EXACT)
    assert validate_bundle(bundle, golden=True, add_exact=True, threads=1).passed
    assert sha256(bundle / EXACT) == digest


def test_validate_fails_by_the_graph_alone_where_the_bound_of_int8_would_pass(bundle):
    logits = read_groups(bundle / EXACT)["full"]["logits"]
    replace(bundle, EXACT, **{"full.logits": logits * np.float32(1.2)})
    result = validate_bundle(bundle, golden=True, threads=1)
    failed = [verdict for verdict in result.verdicts if not verdict.passed]
    assert {(verdict.variant, verdict.case) for verdict in failed} == {("int8", "opt")}
    for verdict in failed:
        assert verdict.figures.relative_l2 < verdict.bound  # eager is not far
        assert verdict.graph_error == pytest.approx(1 / 6, rel=0.2)
        assert verdict.graph_error > verdict.graph_bound


def test_replacing_a_variant_replaces_its_exact_outputs(bundle):
    file = "exact/int8-weights/opt.npz"
    replace(bundle, file, **{"full.logits": np.zeros((1, 5), np.float32)})
    convert_bundle(bundle, precision="int8-weights", force=True)
    assert read_groups(bundle / file)["full"]["logits"].any()
    opened = Bundle.open(bundle)
    assert set(opened.exact_outputs("int8-weights")) == set(opened.samples())


def test_a_runtime_that_gives_another_rank_is_refused_and_opened_only_if_allowed(bundle, monkeypatch):
    execute = OnnxRuntimeSession._execute
    monkeypatch.setattr(
        OnnxRuntimeSession,
        "_execute",
        lambda self, inputs: {name: array[None] for name, array in execute(self, inputs).items()},
    )
    with pytest.raises(ParityError, match=r"sample 'opt': onnxruntime gives output 'logits' with shape \[1, 1, 5\]"):
        load(bundle, runtime="onnxruntime", variant="int8")
    with load(bundle, runtime="onnxruntime", variant="int8", allow_nonconforming=True) as session:
        assert session.conforms is False
        with pytest.raises(ParityError, match="the manifest says"):
            session.run(load_sample(bundle / SAMPLE).inputs)
    result = validate_bundle(bundle, golden=True, threads=1)
    assert {verdict.runtime for verdict in result.verdicts if not verdict.passed} == {"onnxruntime"}
    assert all("with shape" in verdict.error for verdict in result.verdicts if not verdict.passed)


def test_an_engine_for_other_sizes_is_opened_and_not_known_to_conform(bundle, caplog):
    def run(inputs):
        raise InputError("The engine has no profile for these sizes.")

    check = conformance.ConformanceCheck(Bundle.open(bundle), "int8")
    with (
        load(bundle, runtime="onnxruntime", variant="int8") as session,
        caplog.at_level(logging.INFO, logger="perceiver_deploy"),
    ):
        session.device = "another"
        assert check.require(session, "full", run) is None
    assert "no profile for these sizes" in caplog.text


@pytest.fixture
def split(tmp_path):
    """A bundle with the stages beside `full`, and INT8 weights."""
    path = tmp_path / "split"
    export_model(named_model("fourier"), path, split="beside", gate_seconds=1)
    convert_bundle(path, precision="int8-weights")
    return path


def test_encoder_and_decoder_are_asked_when_they_are_first_used(split, own_cache):
    inputs = load_sample(split / SAMPLE).inputs
    with load(split, runtime="onnxruntime", variant="int8-weights") as session:
        assert len(verdicts(own_cache)) == 1
        session.decode(session.encode(inputs))
        assert len(verdicts(own_cache)) == 2
    file = "exact/int8-weights/opt.npz"
    stages = read_groups(split / file)["stages"]["logits"]
    replace(split, file, **{"stages.logits": stages + np.float32(5)})
    with load(split, runtime="onnxruntime", variant="int8-weights") as session:
        assert session.conforms is True
        for _ in range(2):
            with pytest.raises(ParityError, match="'logits' of the golden sample 'opt' is off by"):
                session.encode(inputs)
        assert session.run(inputs)["logits"].shape == (1, 5)
    with load(split, runtime="onnxruntime", variant="int8-weights", allow_nonconforming=True) as session:
        session.encode(inputs)
        assert session.conforms is False


def test_a_failing_sample_cut_to_one_row_is_not_held_to_the_outputs_of_all_rows(bundle):
    file = "exact/int8-weights/odd.npz"
    logits = read_groups(bundle / file)["full"]["logits"].copy()
    logits[-1] += 10
    replace(bundle, file, **{"full.logits": logits})
    result = validate_bundle(bundle, golden=True, threads=1)
    assert {verdict.case for verdict in result.verdicts if not verdict.passed} == {"odd"}
    kept = load_sample(Path(result.failure.sample))
    assert len(kept.inputs["pixel_values"]) == len(logits)  # no row fails by itself
    assert not validate_bundle(bundle, sample=result.failure.sample, threads=1).passed


def test_wrong_exact_outputs_are_made_anew_on_request(bundle):
    replace(bundle, EXACT, **{"full.other": np.zeros(3, np.float32)})
    assert validate_bundle(bundle, golden=True, add_exact=True, threads=1).passed
    assert read_groups(bundle / EXACT)["full"].keys() == {"logits"}
