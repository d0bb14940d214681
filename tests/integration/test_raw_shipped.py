"""Shipped checkpoints with raw inputs, through the command line on real files, against the same without them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from perceiver_deploy.cli.main import main
from perceiver_deploy.pipeline.benchmark.benchmark import benchmark_bundles

DATA = Path("tests/data")
FRAMES = (DATA / "flow/cat_first.png", DATA / "flow/cat_second.png")


def run_json(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """The plain and the raw bundle of a shipped checkpoint, made when first asked for."""
    root = tmp_path_factory.mktemp("shipped")

    def get(name: str) -> tuple[Path, Path]:
        plain, raw = root / name, root / f"{name}-raw"
        if not raw.exists():
            run_json("export", name, "-o", plain, "--no-validate")
            run_json("export", name, "-o", raw, "--raw-inputs", "--gate-seconds", "10")
        return plain, raw

    return get


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A real file for each checkpoint, none of them of the size that the model takes."""
    from sklearn.datasets import load_digits

    grey = np.round(load_digits().images[7] * (255 / 16)).astype(np.uint8)
    Image.fromarray(grey).resize((31, 45), Image.Resampling.BICUBIC).convert("RGB").save(tmp_path / "digit.png")
    text = "A film of great warmth \N{EM DASH} and utterly dull at the end."
    (tmp_path / "review.txt").write_text(text, encoding="utf-8")
    return {
        "digits": tmp_path / "digit.png",
        "sentiment": tmp_path / "review.txt",
        "languages": DATA / "languages/russian.wav",
        "films-video": DATA / "video/bunny.mp4",
        "films-audiovisual": DATA / "video/bunny.mp4",
    }


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "name",
    [
        "digits",
        pytest.param("sentiment", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.full) for name in ("languages", "films-video", "films-audiovisual")),
    ],
)
def test_raw_bundle_says_of_a_real_file_what_the_plain_one_says(
    name: str, runtime: str, exported: Callable[[str], tuple[Path, Path]], files: dict[str, Path]
) -> None:
    (plain,), (raw,) = (run_json("run", path, files[name], "--runtime", runtime) for path in exported(name))
    assert [label for label, _ in raw["classes"]] == [label for label, _ in plain["classes"]]
    # a level rounded the other way (OpenVINO), or sound rounded to 16 bits, moves a probability by less than this
    np.testing.assert_allclose([p for _, p in raw["classes"]], [p for _, p in plain["classes"]], atol=2e-3)


@pytest.mark.full
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_raw_bundle_gives_the_flow_of_the_plain_one_in_pixels(
    runtime: str, exported: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    flows = []
    for index, path in enumerate(exported("flow")):
        run_json("run", path, *FRAMES, "--runtime", runtime, "--save", tmp_path / str(index))
        (written,) = (tmp_path / str(index)).glob("*.flo")
        flows.append(np.frombuffer(written.read_bytes()[12:], "<f4"))
    assert np.abs(flows[0]).max() > 0.5
    np.testing.assert_allclose(flows[1], flows[0], rtol=0, atol=1e-3)  # pixels


@pytest.mark.full
def test_benchmark_measures_a_raw_bundle_on_the_bytes_of_its_data_set(
    exported: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    plain, raw = exported("digits")
    eager = []
    for index, path in enumerate((plain, raw)):
        result = benchmark_bundles(
            [path], data="digits", batches=[1], seconds=0.01, threads=1, output=tmp_path / str(index)
        )
        eager.append(
            [
                measurement.accuracy.metrics[0].value
                for measurement in result.report.measurements
                if measurement.accuracy
            ]
        )
    assert eager[1] == eager[0]
    assert len(eager[0]) == 3
