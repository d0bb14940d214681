"""The C++ library runs a golden sample when a session is opened, and refuses what does not give its own numbers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiver_deploy import convert_bundle, export_model
from perceiver_deploy.arrays import Arrays, relative_l2
from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.bundle.samples import Sample
from perceiver_deploy.errors import BundleError, ParityError, UsageError
from perceiver_deploy.machine import processor_kind
from tests.cpp.c_abi import Library, Session
from tests.cpp.test_parity import inputs_at_shapes
from tests.helpers.task_factories import named_model

SAMPLE, EXACT = "samples/opt.npz", "exact/int8/opt.npz"
BOUND = 1e-3


@pytest.fixture
def fresh(library: Library, tmp_path: Path) -> Iterator[Library]:
    """The library with a cache of its own for this test."""
    kept, library.cache = library.cache, tmp_path / "cache"
    yield library
    library.cache = kept


def arrays_of(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def with_file(bundle: Path, relative: str, arrays: dict[str, Any] | None, *, compressed: bool = False) -> Path:
    """The bundle with another .npz file, of a right digest; None removes it."""
    with changed_bundle(bundle) as (staging, opened):
        if arrays is None:
            staging.remove(relative)
        else:
            (np.savez_compressed if compressed else np.savez)(staging.path(relative), **arrays)
        staging.finish(opened.manifest)
    return bundle


def with_exact(bundle: Path, library: Library, variant: str = "int8", ways: tuple[str, ...] = ("full",)) -> Path:
    """The bundle with what a variant gives here as its exact outputs."""
    sample = arrays_of(bundle / SAMPLE)
    inputs = {key.removeprefix("inputs."): array for key, array in sample.items() if key.startswith("inputs.")}
    with Session(library, bundle, variant=variant, allow_nonconforming=1) as session:
        outputs = session.run(inputs)
    exact: dict[str, Any] = {}
    for way in ways:
        exact |= {f"{way}.{name}": array.astype(np.float64) for name, array in outputs.items()}
        exact |= {f"{way}_bound.{name}": np.float64(BOUND) for name in outputs}
    return with_file(bundle, f"exact/{variant}/opt.npz", exact)


@pytest.fixture(scope="session")
def converted(shared_bundle: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped digits in fp32 and int8, with exact outputs. READ ONLY."""
    bundle = tmp_path_factory.mktemp("conformance") / "digits"
    shutil.copytree(shared_bundle("digits"), bundle)
    convert_bundle(bundle, calibration="digits", samples=8)
    return bundle


@pytest.fixture
def bundle(converted: Path, tmp_path: Path, library: Library) -> Path:
    """A copy that the test may change, held to what int8 gives here, so that how far it is off is known."""
    return with_exact(Path(shutil.copytree(converted, tmp_path / "digits.bundle")), library)


def test_a_variant_is_held_to_the_exact_outputs_that_convert_wrote(converted: Path, fresh: Library) -> None:
    with Session(fresh, converted, variant="int8") as session:
        assert session.text("conformance") == "conforms"
    verdict = json.loads(verdicts(fresh)[0].read_text())
    assert verdict["bound"] == float(arrays_of(converted / EXACT)["full_bound.logits"])


def verdicts(library: Library) -> list[Path]:
    return sorted((library.cache / "conformance").glob("*"))


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_a_variant_that_conforms_is_opened_and_its_verdict_is_kept(variant: str, bundle: Path, fresh: Library) -> None:
    with Session(fresh, bundle, variant=variant) as session:
        assert session.text("conformance") == "conforms"
    (kept,) = verdicts(fresh)
    assert re.fullmatch(r"cpp-[0-9a-f]{64}\.json", kept.name)
    verdict = json.loads(kept.read_text())
    assert (verdict["conforms"], verdict["output"], verdict["sample"]) == (True, "logits", "opt")
    sample = arrays_of(bundle / SAMPLE)
    eager = relative_l2(sample["float32.logits"], sample["float64.logits"])
    assert verdict["bound"] == pytest.approx(max(1e-5, 100 * eager) if variant == "fp32" else BOUND)
    assert 0 <= verdict["distance"] <= verdict["bound"]
    before = kept.stat().st_mtime_ns
    with Session(fresh, bundle, variant=variant) as session:
        assert session.text("conformance") == "conforms"
        assert kept.stat().st_mtime_ns == before
        session.check()
        assert kept.stat().st_mtime_ns != before


def test_each_graph_sample_and_variant_has_a_verdict_of_its_own(bundle: Path, fresh: Library) -> None:
    for variant in ("fp32", "int8", "int8"):
        Session(fresh, bundle, variant=variant).close()
    assert len(verdicts(fresh)) == 2
    sample = arrays_of(bundle / SAMPLE)
    with_file(bundle, SAMPLE, {**sample, "name": np.array("another")})
    Session(fresh, bundle).close()
    assert len(verdicts(fresh)) == 3


def far_off(bundle: Path) -> tuple[Path, float]:
    """The bundle with other exact outputs, and how far the variant is from them."""
    exact = arrays_of(bundle / EXACT)
    wrong = {**exact, "full.logits": exact["full.logits"][:, ::-1] * 2}
    return with_file(bundle, EXACT, wrong), relative_l2(exact["full.logits"], wrong["full.logits"])


def test_a_variant_that_does_not_conform_is_refused_unless_it_is_allowed(bundle: Path, fresh: Library) -> None:
    bundle, distance = far_off(bundle)
    said = (
        f"output 'logits' of the golden sample 'opt' is off by {distance:.1e} (relative L2), where rounding allows at "
        f"most {BOUND:.1e}"
    )
    for _ in range(2):  # measured, and from the cache
        with pytest.raises(ParityError) as caught:
            Session(fresh, bundle, variant="int8")
        assert re.fullmatch(
            r"Variant 'int8' in onnxruntime [\d.]+ does not give the numbers of its own graph on this processor \("
            + re.escape(f"{processor_kind()}): {said}. ")
            + "Use another runtime, or a variant that conforms here, such as fp32. allow_nonconforming opens it all "
            r"the same\.",
            str(caught.value),
        )
    with Session(fresh, bundle, variant="int8", allow_nonconforming=1) as session:
        assert session.text("conformance") == f"does not conform: {said}"
        with pytest.raises(ParityError, match="does not give the numbers of its own graph"):
            session.check()
    with Session(fresh, bundle, variant="fp32", allow_nonconforming=0) as session:
        assert session.text("conformance") == "conforms"


def test_a_value_that_is_not_finite_never_conforms(bundle: Path, fresh: Library) -> None:
    exact = arrays_of(bundle / EXACT)
    with_file(bundle, EXACT, {**exact, "full.logits": exact["full.logits"] * np.nan, "full_bound.logits": 1e300})
    for _ in range(2):
        with pytest.raises(ParityError, match=r"'opt' is not finite, where rounding allows at most 1\.0e\+300\. Use"):
            Session(fresh, bundle, variant="int8")


@pytest.mark.parametrize("value", ["", "yes", "2"])
def test_the_option_takes_0_and_1(value: str, bundle: Path, fresh: Library) -> None:
    with pytest.raises(UsageError, match=f"allow_nonconforming is '{value}'; expected 0 or 1"):
        Session(fresh, bundle, allow_nonconforming=value)


def test_files_that_were_changed_are_refused(bundle: Path, fresh: Library) -> None:
    for relative in (EXACT, SAMPLE):
        content = bytearray((bundle / relative).read_bytes())
        content[-100] ^= 1
        (bundle / relative).write_bytes(content)
        with pytest.raises(BundleError, match=f"{relative} was changed after the bundle was written"):
            Session(fresh, bundle, variant="int8" if relative == EXACT else "fp32")


def without_bound(exact: dict[str, Any]) -> dict[str, Any]:
    return {key: array for key, array in exact.items() if "bound" not in key}


def with_two_bounds(exact: dict[str, Any]) -> dict[str, Any]:
    return {**exact, "full_bound.logits": np.array([1.0, 1.0])}


def with_no_bound(exact: dict[str, Any]) -> dict[str, Any]:
    return {**exact, "full_bound.logits": np.array(np.nan)}


@pytest.mark.parametrize("change", [without_bound, with_two_bounds, with_no_bound])
def test_exact_outputs_that_do_not_hold_what_they_should_are_refused(
    change: Callable[[dict[str, Any]], dict[str, Any]], bundle: Path, fresh: Library
) -> None:
    with_file(bundle, EXACT, change(arrays_of(bundle / EXACT)))
    with pytest.raises(BundleError) as caught:
        Session(fresh, bundle, variant="int8")
    assert str(caught.value) == (
        f"{bundle}/{EXACT} does not hold what int8 gives by full; expected outputs and bounds of logits. Add them anew "
        f"with: perceiver-deploy validate {bundle} --add-exact"
    )


def test_exact_outputs_that_are_no_npz_file_are_refused(bundle: Path, fresh: Library) -> None:
    with changed_bundle(bundle) as (staging, opened):
        staging.path(EXACT).write_bytes(b"PK\3\4" + bytes(100))
        staging.finish(opened.manifest)
    with pytest.raises(BundleError, match=r"exact/int8/opt\.npz is not an \.npz file of NumPy: "):
        Session(fresh, bundle, variant="int8")


def without_samples(bundle: Path) -> None:
    for relative in Bundle.open(bundle).samples():
        with_file(bundle, relative, None)


def without_exact(bundle: Path) -> None:
    with_file(bundle, EXACT, None)


def with_deflated_sample(bundle: Path) -> None:
    with_file(bundle, SAMPLE, arrays_of(bundle / SAMPLE), compressed=True)


UNKNOWN: dict[Callable[[Path], None], str] = {
    without_samples: "has no golden samples",
    without_exact: "has no exact outputs of it. Add them with: perceiver-deploy validate",
    with_deflated_sample: "samples/opt.npz is compressed, as older versions of perceiver-deploy wrote it",
}


@pytest.mark.parametrize("change", UNKNOWN)
def test_what_cannot_be_known_is_opened_and_says_why(
    change: Callable[[Path], None], bundle: Path, fresh: Library
) -> None:
    change(bundle)
    with Session(fresh, bundle, variant="int8") as session:
        said = session.text("conformance")
        assert said.startswith("unknown: ")
        assert UNKNOWN[change] in said
        session.check()
    assert not verdicts(fresh)


def test_without_its_usual_sample_the_first_one_is_run(bundle: Path, fresh: Library) -> None:
    first = next(file for file in Bundle.open(bundle).samples() if file != SAMPLE)
    with_file(bundle, SAMPLE, None)
    with Session(fresh, bundle) as session:
        assert session.text("conformance") == "conforms"
    assert json.loads(verdicts(fresh)[0].read_text())["sample"] == Path(first).stem


@pytest.mark.parametrize("content", ["", "{", "[]", '{"conforms": true}', '{"conforms": 1}', "\0"])
def test_a_damaged_verdict_is_found_anew(content: str, bundle: Path, fresh: Library) -> None:
    Session(fresh, bundle).close()
    (kept,) = verdicts(fresh)
    good = kept.read_text()
    forged = json.dumps({**json.loads(good), "distance": 1.0})  # conforming, and beyond its bound
    for damaged in (content, forged):
        kept.write_text(damaged)
        Session(fresh, bundle).close()
        assert json.loads(kept.read_text()) == json.loads(good)
    assert verdicts(fresh) == [kept]


def test_a_cache_that_cannot_be_written_is_no_error(bundle: Path, fresh: Library) -> None:
    fresh.cache.write_text("a file, not a folder")
    with Session(fresh, bundle) as session:
        assert session.text("conformance") == "conforms"
    bundle, _ = far_off(bundle)
    with pytest.raises(ParityError):
        Session(fresh, bundle, variant="int8")
    fresh.cache.unlink()
    (fresh.cache / "conformance").mkdir(parents=True)
    (fresh.cache / "conformance").chmod(0o500)
    Session(fresh, bundle).close()


def with_sample(bundle: Path, inputs: Arrays, library: Library) -> None:
    """Make what an unvalidated bundle gives here its golden sample."""
    with Session(library, bundle) as session:
        assert session.text("conformance") == f"unknown: {bundle} has no golden samples"
        outputs = session.run(inputs)
    exact: Arrays = {name: array.astype(np.float64) for name, array in outputs.items()}
    with changed_bundle(bundle) as (staging, opened):
        Sample("opt", inputs, exact, outputs).save(staging.path(SAMPLE))
        staging.finish(opened.manifest)


@pytest.mark.parametrize("split", ["beside", "only"])
def test_encoder_and_decoder_are_held_to_outputs_of_their_own(split: Any, tmp_path: Path, fresh: Library) -> None:
    bundle = tmp_path / "bundle"
    export_model(named_model("masked_lm"), bundle, split=split, validate=False)
    inputs = inputs_at_shapes(bundle)[0]
    with_sample(bundle, inputs, fresh)
    shutil.copytree(bundle, tmp_path / "right")
    encoded = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with Session(fresh, tmp_path / "right") as session:
        assert session.run(encoded, "encoder")
        assert session.text("conformance") == "conforms"
    assert len(verdicts(fresh)) == (2 if split == "beside" else 1)
    # In another precision the two ways have outputs of their own; here the second one's are wrong.
    document = json.loads((bundle / "bundle.json").read_text())
    document["variants"]["fp32"]["precision"] = "fp16"
    (bundle / "bundle.json").write_text(json.dumps(document))
    with_exact(bundle, fresh, "fp32", ("full", "stages"))
    exact = arrays_of(bundle / "exact/fp32/opt.npz")
    with_file(bundle, "exact/fp32/opt.npz", {**exact, "stages.logits": exact["stages.logits"] + 1e3})
    if split == "only":
        with pytest.raises(ParityError, match="Variant 'fp32' in onnxruntime"):
            Session(fresh, bundle)
        return
    with Session(fresh, bundle) as session:
        session.run(inputs)
        assert session.text("conformance") == "conforms"
        for _ in range(2):
            with pytest.raises(ParityError, match="Variant 'fp32' in onnxruntime"):
                session.run(encoded, "encoder")
        assert session.text("conformance").startswith("does not conform: output 'logits'")
        session.run(inputs)
    with Session(fresh, bundle, allow_nonconforming=1) as session:
        assert session.run(encoded, "encoder")
        assert session.text("conformance").startswith("does not conform: output 'logits'")
