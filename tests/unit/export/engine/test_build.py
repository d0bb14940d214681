from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perceiver_deploy.errors import ExportError, MissingError, UsageError
from perceiver_deploy.export.engine.build import (
    BuildOptions,
    BuiltEngine,
    build_engine_bytes,
    buildable_capabilities,
    load_builder,
    parse_compute_capability,
)
from perceiver_deploy.runtimes.nvidia.families import FAMILIES, FamilyName
from perceiver_deploy.runtimes.nvidia.profiles import InputShapes, Profile

pytest.importorskip("tensorrt_rtx", reason="building engines needs tensorrt-rtx-cu13")
pytest.importorskip("polygraphy", reason="building engines needs polygraphy")

PROFILE = {"x": InputShapes((1, 4), (2, 4), (8, 4))}
ADA = BuildOptions(compute_capabilities=((8, 9),))


def compiled(path: Path, profile: Profile | None = None, options: BuildOptions = ADA) -> BuiltEngine:
    return build_engine_bytes(path, FAMILIES["tensorrt-rtx"], [profile or PROFILE], options)


def write_model(path: Path, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto] | None = None) -> Path:
    """A model from `x` float32 [batch, 4] to `y`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [x], [y], initializers or [])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("custom", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def linear(path: Path) -> Path:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], [0.5] * 8)
    return write_model(path, [helper.make_node("MatMul", ["x", "w"], ["y"], name="encoder.query/MatMul")], [weight])


def refused(path: Path, profile: Profile | None = None) -> str:
    with pytest.raises(ExportError) as caught:
        compiled(path, profile)
    return str(caught.value)


def test_compute_capabilities_of_this_library_are_those_of_turing_to_blackwell() -> None:
    assert buildable_capabilities() == [(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)]


@pytest.mark.parametrize(("text", "capability"), [("8.9", (8, 9)), ("12.0", (12, 0)), (" 7.5 ", (7, 5))])
def test_compute_capability_is_read(text: str, capability: tuple[int, int]) -> None:
    assert parse_compute_capability(text) == capability


@pytest.mark.parametrize("text", ["9.0", "8", "89", "sm89", "", "8.9.1", "-8.9"])
def test_compute_capability_that_cannot_be_built_for_lists_those_that_can(text: str) -> None:
    with pytest.raises(UsageError, match=r"7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1") as caught:
        parse_compute_capability(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(("family", "extra"), [("tensorrt-rtx", "rtx"), ("tensorrt", "trt")])
def test_missing_library_names_the_extra_that_brings_it(
    family: FamilyName, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = FAMILIES[family].module
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingError, match=rf"'{module}'.*perceiver-deploy\[{extra}\]"):
        load_builder(FAMILIES[family])


def test_engine_is_reproducible_and_facts_name_what_built_it(tmp_path: Path) -> None:
    first = compiled(linear(tmp_path / "linear.onnx"))
    second, facts = compiled(tmp_path / "linear.onnx"), first.facts
    assert first.content == second.content
    assert len(first.content) > 1000
    assert facts["tensorrt_version"].startswith("1.")
    assert facts["tf32"] is False
    assert sum(facts["layers"].values()) > 0
    assert facts["warnings"] == []


def test_quantised_multiplication_is_compiled_to_int8(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["quantised"]),
        helper.make_node("DequantizeLinear", ["quantised", "scale", "zero"], ["activation"]),
        helper.make_node("DequantizeLinear", ["w", "scales", "zeros"], ["weight"], axis=1),
        helper.make_node("MatMul", ["activation", "weight"], ["y"], name="encoder.query/MatMul"),
    ]
    arrays = {
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "w": np.arange(32, dtype=np.int8).reshape(4, 8),
        "scales": np.full(8, 0.1, np.float32),
        "zeros": np.zeros(8, np.int8),
    }
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    facts = compiled(write_model(tmp_path / "int8.onnx", nodes, tensors)).facts
    assert facts["gemm_dtypes"] == {"Int8": 1}


def test_refused_operators_are_named_with_their_nodes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Fused", ["x"], ["a"], name="encoder.cross_attention.query/Fused", domain="custom"),
        helper.make_node("Relu", ["a"], ["b"], name="encoder.activation/Relu"),
        helper.make_node("Other", ["b"], ["y"], name="decoder.query/Other", domain="custom"),
    ]
    message = refused(write_model(tmp_path / "custom.onnx", nodes))
    assert "refuses custom.onnx" in message
    assert "encoder.cross_attention.query/Fused (operator Fused): Plugin not found" in message
    assert "decoder.query/Other (operator Other)" in message
    assert "encoder.activation/Relu" not in message


def test_more_refused_nodes_than_fit_a_paragraph_are_counted(tmp_path: Path) -> None:
    names = [str(index) for index in range(8)]
    nodes = [
        helper.make_node("Fused", [source], [target], name=f"layer{target}/Fused", domain="custom")
        for source, target in zip(["x", *names], [*names, "y"], strict=True)
    ]
    message = refused(write_model(tmp_path / "many.onnx", nodes))
    assert "layer4/Fused" in message
    assert "layer5/Fused" not in message
    assert "and 4 more nodes" in message


def test_operator_without_an_implementation_is_said_not_to_be_supported(tmp_path: Path) -> None:
    message = refused(write_model(tmp_path / "det.onnx", [helper.make_node("Det", ["x"], ["y"], name="head/Det")]))
    assert "head/Det (operator Det): this operator is not supported." in message


def test_types_that_do_not_agree_are_explained_without_a_word_about_the_missing_gpu(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], name="input/Cast", to=TensorProto.FLOAT16),
        helper.make_node("Add", ["x", "half"], ["y"], name="encoder.residual/Add"),
    ]
    message = refused(write_model(tmp_path / "types.onnx", nodes))
    assert "encoder.residual/Add (operator Add)" in message
    assert "must have same input types" in message
    assert "Cuda" not in message
    assert "/_src/" not in message


def test_operation_that_a_gpu_does_not_have_is_named_with_its_capability(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        compiled(linear(tmp_path / "linear.onnx"), options=BuildOptions(((7, 5),)))
    assert "for compute capability 7.5: Cannot compile operation 'encoder.query/MatMul'" in str(caught.value)
    assert "FP32 GEMM is not supported" in str(caught.value)


def test_file_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(b"garbage" * 50)
    assert "refuses garbage.onnx: Failed to parse the ONNX model." in refused(path)


def test_profile_beyond_a_position_table_is_refused(tmp_path: Path) -> None:
    constants = {"table": [[0.0] * 4] * 4, "zero": [0], "one": [1]}
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
        helper.make_node("Slice", ["table", "zero", "batch", "zero", "one"], ["rows"]),
        helper.make_node("Concat", ["x", "rows"], ["y"], name="embed/Concat", axis=1),
    ]
    arrays = [
        numpy_helper.from_array(np.array(value, np.float32 if name == "table" else np.int64), name)
        for name, value in constants.items()
    ]
    path = write_model(tmp_path / "table.onnx", nodes, arrays)
    compiled(path, {"x": InputShapes((1, 4), (2, 4), (4, 4))})
    message = refused(path, {"x": InputShapes((1, 4), (2, 4), (8, 4))})
    assert "table.onnx cannot run at the sizes of the engine's profile" in message
    assert "embed/Concat" in message
    assert "/_src/" not in message


def test_nothing_is_printed_and_logging_is_left_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from polygraphy.logger import G_LOGGER

    names = ("use_python_logging_system", "colors", "letter", "once_logged")
    before = [getattr(G_LOGGER, name) for name in names]
    nodes = [helper.make_node("Fused", ["x"], ["y"], name="query/Fused", domain="custom")]
    with caplog.at_level(logging.DEBUG):
        compiled(linear(tmp_path / "linear.onnx"))
        refused(write_model(tmp_path / "custom.onnx", nodes))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert [getattr(G_LOGGER, name) for name in names] == before
    assert logging.getLogger("Polygraphy").handlers == []


@pytest.mark.parametrize(
    ("imported", "expected"), [("polygraphy", "(8, 9)"), ("polygraphy.backend.trt", "new process")]
)
def test_polygraphy_imported_before_matters_only_where_it_drives_tensorrt(imported: str, expected: str) -> None:
    code = (
        f"import {imported}\n"
        "from perceiver_deploy.errors import ExportError\n"
        "from perceiver_deploy.export.engine.build import parse_compute_capability\n"
        "try:\n"
        "    print(parse_compute_capability('8.9'))\n"
        "except ExportError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert expected in done.stdout
