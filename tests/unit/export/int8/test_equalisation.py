"""Equalised graphs compute the same, and make quantised ones better where channels are unequal."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from perceiver_deploy.bundle.manifest import Axis, Stage, TensorSpec
from perceiver_deploy.export.calibration.observation import fill, observe
from perceiver_deploy.export.int8.equalisation import ChannelPeaks, equalise, equalised_tensors
from perceiver_deploy.export.int8.quantize import quantize_int8, ranged_tensors
from perceiver_deploy.runtimes.cpu.onnxruntime import OnnxRuntimeSession
from perceiver_deploy.runtimes.settings import RuntimeSettings
from tests.helpers.factories import relative_l2

CHANNELS, OUT = 16, 12


def write_graph(path, *, other_reader=False):
    """Two norms that share a scale, with a projection each; one channel of the scale is 40 times the others."""
    rng = np.random.default_rng(0)
    scale = np.ones(CHANNELS, np.float32)
    scale[3] = 40
    arrays = {
        "scale": scale,
        "bias": rng.standard_normal(CHANNELS).astype(np.float32),
        "bias_2": rng.standard_normal(CHANNELS).astype(np.float32),
        "weight": rng.standard_normal((CHANNELS, CHANNELS)).astype(np.float32),
        "weight_2": rng.standard_normal((CHANNELS, OUT)).astype(np.float32),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["norm"], axis=-1),
        helper.make_node("MatMul", ["norm", "weight"], ["hidden"], name="first"),
        helper.make_node("LayerNormalization", ["hidden", "scale", "bias_2"], ["norm_2"], axis=-1),
        helper.make_node("MatMul", ["norm_2", "weight_2"], ["y"], name="second"),
    ]
    if other_reader:
        nodes.insert(3, helper.make_node("Relu", ["norm_2"], ["relu"]))
        nodes[4] = helper.make_node("MatMul", ["relu", "weight_2"], ["y"], name="second")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["batch", CHANNELS])],
        [info("y", TensorProto.FLOAT, ["batch", OUT])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        value_info=[info(n, TensorProto.FLOAT, ["batch", CHANNELS]) for n in ("norm", "hidden", "norm_2", "relu")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def batches():
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((64, CHANNELS)).astype(np.float32)} for _ in range(2)]


def equalised(path, target):
    model = ir.load(path)
    peaks = {name: ChannelPeaks() for name in equalised_tensors(model)}
    if peaks:
        fill(peaks, path, batches)
    count = equalise(model, {name: seen.peaks for name, seen in peaks.items()})
    ir.save(model, target)
    return count


def run(path):
    stage = Stage(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", CHANNELS)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", OUT)),),
    )
    with OnnxRuntimeSession(path, stage, {"batch": Axis(opt=1)}, RuntimeSettings(threads=1)) as session:
        return session.run(batches()[0])["y"]


def test_norms_that_share_a_scale_are_scaled_alike_and_the_function_stays_the_same_to_the_bit(tmp_path):
    path = write_graph(tmp_path / "graph.onnx")
    assert equalised(path, tmp_path / "equal.onnx") == 2
    before, after = (ir.load(p).graph.initializers for p in (path, tmp_path / "equal.onnx"))
    factors = before["scale"].const_value.numpy() / after["scale"].const_value.numpy()
    assert factors[3] > factors.min()
    assert (np.log2(factors) % 1 == 0).all()
    assert (after["weight_2"].const_value.numpy() == before["weight_2"].const_value.numpy() * factors[:, None]).all()
    assert (run(tmp_path / "equal.onnx") == run(path)).all()


def test_int8_of_unequal_channels_is_better_after_equalisation(tmp_path):
    path = write_graph(tmp_path / "graph.onnx")
    equalised(path, tmp_path / "equal.onnx")
    errors = []
    for source in (path, tmp_path / "equal.onnx"):
        seen = observe(source, ranged_tensors(ir.load(source)), batches)
        quantize_int8(source, tmp_path / "int8.onnx", {name: (h.low, h.high) for name, h in seen.items()})
        errors.append(relative_l2(run(tmp_path / "int8.onnx"), run(path)))
    # the outlier takes five of seven bits from the others, of which the factors give about half back
    assert errors[1] < 0.6 * errors[0]


def test_a_norm_that_others_read_too_is_left_with_all_that_share_its_parameters(tmp_path):
    path = write_graph(tmp_path / "graph.onnx", other_reader=True)
    assert equalised(path, tmp_path / "equal.onnx") == 0
    assert (run(tmp_path / "equal.onnx") == run(path)).all()


@pytest.mark.parametrize("silent", [0.0, 5.0])
def test_silent_channels_keep_their_parameters(tmp_path, silent):
    model = ir.load(write_graph(tmp_path / "graph.onnx"))
    peaks = np.full(CHANNELS, 2.0)
    peaks[5] = silent
    before = model.graph.initializers["bias"].const_value.numpy().copy()
    equalise(model, {"norm": peaks, "norm_2": peaks})
    same = model.graph.initializers["bias"].const_value.numpy()[5] == before[5]
    assert same == (silent == 0.0)
