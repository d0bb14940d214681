"""The shipped model of spoken language, from export to the language of a real recording."""

from __future__ import annotations

import shutil
import wave
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from perceiver_deploy import convert_bundle
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.data.media.files import read_example
from perceiver_deploy.errors import InputError
from perceiver_deploy.pipeline.predict import predict_files

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RECORDINGS = [ROOT / "examples" / "italian.wav", ROOT / "tests" / "data" / "languages" / "russian.wav"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, shared_bundle):
    """The shipped checkpoint, exported behind its gate, and calibrated on the recordings."""
    path = shutil.copytree(shared_bundle("languages"), tmp_path_factory.mktemp("languages") / "bundle")
    preprocessing = Bundle.open(path).manifest.preprocessing
    examples = [read_example(file, preprocessing, {}) for file in RECORDINGS]
    calibration = path.with_name("calibration.npz")
    np.savez(calibration, **{name: np.concatenate([example[name] for example in examples]) for name in examples[0]})
    report = convert_bundle(path, precision="int8", calibration=str(calibration)).reports["full"]
    assert report.quantized == report.weight_gemms > 0
    return path


@pytest.mark.parametrize("variant", ["fp32", "int8"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_recordings_get_their_language_in_every_runtime_and_variant(bundle, runtime, variant):
    for prediction in predict_files(bundle, RECORDINGS, runtime=runtime, variant=variant):
        language, share = prediction.classes[0]
        assert language.lower() == Path(prediction.file).stem
        assert share > 0.8


def test_int8_leaves_the_spectrogram_in_float32(bundle):
    nodes = ir.load(Bundle.open(bundle).file("onnx/int8.onnx")).graph
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert len(convolutions) == 2
    producers = [value.producer() for node in convolutions for value in node.inputs if value is not None]
    assert "DequantizeLinear" not in {producer.op_type for producer in producers if producer is not None}


def test_sound_of_another_sample_rate_is_refused(bundle, tmp_path):
    with wave.open(str(tmp_path / "fast.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(3200))
    with pytest.raises(InputError, match="at 16000 Hz; expected mono at 8000 Hz"):
        predict_files(bundle, [tmp_path / "fast.wav"])
