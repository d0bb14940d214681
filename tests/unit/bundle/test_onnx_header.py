"""ONNX files read without onnx: the same answers as onnx's own reader, and refusal of what cannot be read."""

from __future__ import annotations

import contextlib

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from perceiver_deploy.bundle.onnx_header import ExternalData, external_files, read_header
from perceiver_deploy.errors import BundleError


def external_tensor(name, location, **entries):
    tensor = TensorProto(name=name, dims=[2], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def write(path, *, graph=None, **fields):
    model = onnx.ModelProto(graph=graph or onnx.GraphProto(), **fields)
    path.write_bytes(model.SerializeToString())
    return path


def test_versions_are_those_that_onnx_reads(tmp_path):
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    header = read_header(write(tmp_path / "m.onnx", ir_version=9, opset_import=opsets))
    assert (header.ir_version, header.opset, header.opsets) == (9, 20, {"": 20, "com.microsoft": 1})


def test_versions_of_an_exported_model_are_those_that_onnx_reads(shared_bundle):
    path = shared_bundle("fourier") / "onnx/fp32.onnx"
    model, header = onnx.load(path), read_header(path)
    assert header.ir_version == model.ir_version
    assert header.opsets == {entry.domain: entry.version for entry in model.opset_import}
    assert header.external == []


def test_external_tensors_are_found_wherever_a_model_can_keep_them(tmp_path):
    """Initialisers, constants, both inside branches, sparse tensors and functions."""
    inner = onnx.GraphProto(initializer=[external_tensor("a", "branch")])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=onnx.GraphProto()),
        helper.make_node("Constant", [], ["d"], value=external_tensor("b", "constant")),
    ]
    sparse = onnx.SparseTensorProto(values=external_tensor("v", "values"), indices=external_tensor("i", "indices"))
    graph = onnx.GraphProto(node=nodes, initializer=[external_tensor("w", "weights")], sparse_initializer=[sparse])
    function = onnx.FunctionProto(
        node=[helper.make_node("Constant", [], ["d"], value=external_tensor("f", "function"))]
    )
    header = read_header(write(tmp_path / "m.onnx", graph=graph, functions=[function]))
    found = sorted(entry.location for entry in header.external)
    assert found == ["branch", "constant", "function", "indices", "values", "weights"]


def test_offset_and_length_are_read_and_absent_ones_mean_the_whole_file(tmp_path):
    tensors = [external_tensor("a", "w.data", offset=4096, length=8, checksum="x"), external_tensor("b", "w.data")]
    header = read_header(write(tmp_path / "m.onnx", graph=onnx.GraphProto(initializer=tensors)))
    assert header.external == [ExternalData("w.data", 4096, 8), ExternalData("w.data", 0, 0)]


def test_files_of_weights_are_named_once_each(tmp_path):
    tensors = [external_tensor("a", "w.data", length=8), external_tensor("b", "w.data", offset=8, length=8)]
    path = write(tmp_path / "m.onnx", graph=onnx.GraphProto(initializer=tensors))
    (tmp_path / "w.data").write_bytes(bytes(16))
    assert external_files(path) == [tmp_path / "w.data"]


def test_weights_that_end_early_are_refused(tmp_path):
    tensors = [external_tensor("a", "w.data", offset=8, length=8)]
    path = write(tmp_path / "m.onnx", graph=onnx.GraphProto(initializer=tensors))
    (tmp_path / "w.data").write_bytes(bytes(15))
    with pytest.raises(BundleError, match=r"reads 'w\.data' up to byte 16, and that file has 15 bytes"):
        external_files(path)


def test_a_link_to_weights_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "outside").write_bytes(bytes(8))
    (tmp_path / "model/w.data").symlink_to(tmp_path / "outside")
    tensors = [external_tensor("a", "w.data", length=8)]
    path = write(tmp_path / "model/m.onnx", graph=onnx.GraphProto(initializer=tensors))
    with pytest.raises(BundleError, match=r"'w\.data', a link to a file outside its folder"):
        external_files(path)


@pytest.mark.parametrize("location", ["absent", "x" * 300, "a\0b"])
def test_weights_that_are_not_there_are_refused(tmp_path, location):
    path = write(tmp_path / "m.onnx", graph=onnx.GraphProto(initializer=[external_tensor("a", location)]))
    with pytest.raises(BundleError, match="which is not there"):
        external_files(path)


@pytest.mark.parametrize(
    "entry", [{"offset": "-8"}, {"offset": "x"}, {"length": "-"}], ids=["below 0", "offset", "length"]
)
def test_places_that_are_not_numbers_are_refused(tmp_path, entry):
    path = write(tmp_path / "m.onnx", graph=onnx.GraphProto(initializer=[external_tensor("a", "w", **entry)]))
    with pytest.raises(BundleError, match="is not an ONNX file"):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"changed", b"\x00" * 9, b"PK\x03\x04" * 9, b"\xff" * 99, b"\x3a\x7f"])
def test_bytes_that_are_not_onnx_are_refused(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="is not an ONNX file"):
        read_header(tmp_path / "m.onnx")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"absent\.onnx cannot be read: No such file"):
        read_header(tmp_path / "absent.onnx")


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_read_or_refused_and_never_anything_else(tmp_path, data):
    tensors = [external_tensor("a", "w.data", offset=8, length=8)]
    content = bytearray(onnx.ModelProto(ir_version=9, graph=onnx.GraphProto(initializer=tensors)).SerializeToString())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "m.onnx").write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with contextlib.suppress(BundleError):
        external_files(tmp_path / "m.onnx")
