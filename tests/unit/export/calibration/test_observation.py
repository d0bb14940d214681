"""Observing tensors of a graph: against the graph's own arithmetic, in groups, and after a kill."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from perceiver_deploy.errors import ExportError, InputError
from perceiver_deploy.export.calibration import observation as calibration
from perceiver_deploy.export.calibration import partial_results, segments
from perceiver_deploy.export.calibration.observation import largest_batch, observe


@pytest.fixture
def graph(tmp_path):
    """x [batch, 4] -> doubled -> square root, which is NaN for negative x."""
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["doubled"]),
            helper.make_node("Sqrt", ["doubled"], ["root"]),
            helper.make_node("Neg", ["doubled"], ["y"]),
        ],
        "g",
        [info("x", TensorProto.FLOAT, ["batch", 4])],
        [info("y", TensorProto.FLOAT, ["batch", 4])],
        value_info=[info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("doubled", "root")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "graph.onnx")
    return tmp_path / "graph.onnx"


def batches():
    return ({"x": np.arange(8, dtype=np.float32).reshape(2, 4) + 10 * index} for index in range(3))


def test_inputs_intermediates_and_outputs_are_observed_over_all_batches(graph):
    seen = observe(graph, ["x", "doubled", "y"], batches)
    assert {name: (h.low, h.high) for name, h in seen.items()} == {"x": (0, 27), "doubled": (0, 54), "y": (-54, 0)}
    assert all(histogram.counts.sum() == 3 * 8 for histogram in seen.values())


def test_a_graph_is_cut_where_its_tensors_are_beyond_the_bound_and_gives_the_same(graph, monkeypatch):
    whole = observe(graph, ["x", "doubled", "y"], batches)
    made = []
    monkeypatch.setattr(segments, "_Run", lambda *given, run=segments._Run: made.append(given) or run(*given))
    monkeypatch.setattr(calibration, "GROUP_BYTES", 8 * 4)  # one tensor of a batch
    parts = observe(graph, ["x", "doubled", "y"], batches)
    assert [part.shown for _, part, *_ in made] == [["doubled"], ["y"]]
    assert [len(part.nodes) for _, part, *_ in made] == [1, 1]  # each node in one part, and none that nobody looks at
    assert all((parts[name].to_array() == whole[name].to_array()).all() for name in whole)


def test_a_batch_is_as_large_as_its_largest_tensor_allows(graph, monkeypatch):
    import onnx_ir as ir

    monkeypatch.setattr(calibration, "GROUP_BYTES", 4 * 5 * 16)  # a quarter holds five samples of 16 bytes
    sample = {"x": np.zeros((1, 4), np.float32)}
    assert largest_batch(ir.load(graph), ["doubled"], sample, 32) == 5
    assert largest_batch(ir.load(graph), ["doubled"], sample, 3) == 3
    monkeypatch.setattr(calibration, "GROUP_BYTES", 4)
    assert largest_batch(ir.load(graph), ["doubled"], sample, 32) == 1


def test_a_killed_calibration_goes_on_where_it_was(graph, monkeypatch, tmp_path):
    monkeypatch.setattr(partial_results, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(calibration, "GROUP_BYTES", 8 * 4)  # a part for each tensor
    partial = tmp_path / "cache" / "partial.npz"
    whole = observe(graph, ["doubled", "y"], batches)
    run, ran = segments.Segments.run, []

    def killed(self, batch):
        parts = run(self, batch)
        yield next(parts)
        if len(ran) == 2:
            raise KeyboardInterrupt  # between the parts of the third batch
        yield from parts
        ran.append(batch)

    monkeypatch.setattr(segments.Segments, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        observe(graph, ["doubled", "y"], batches, partial=partial)
    assert partial.exists()
    resumed_on = []
    monkeypatch.setattr(segments.Segments, "run", lambda self, batch: resumed_on.append(batch) or run(self, batch))
    resumed = observe(graph, ["doubled", "y"], batches, partial=partial)
    assert len(resumed_on) == 1  # of three
    assert all((resumed[name].to_array() == whole[name].to_array()).all() for name in whole)
    assert not partial.exists()


def flipped_bytes(path):
    np.savez_compressed(path, **{"tensor.y": np.arange(5000.0), "steps": np.array(1)})
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)


def other_length(path):
    np.savez(path, **{"tensor.y": np.zeros(7), "steps": np.array(1)})


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"half a file"), flipped_bytes, other_length])
def test_partial_results_that_cannot_be_read_are_begun_again(damage, graph, tmp_path, caplog):
    partial = tmp_path / "partial.npz"
    damage(partial)
    seen = observe(graph, ["y"], batches, partial=partial)
    assert seen["y"].low == -54
    assert "calibrating from the beginning" in caplog.text


def test_a_tensor_that_is_not_finite_is_named(graph):
    with pytest.raises(InputError, match="Tensor root has no range: it holds values that are not finite"):
        observe(graph, ["doubled", "root"], lambda: [{"x": np.full((2, 4), -1, np.float32)}])


def test_no_data_and_unknown_tensors_are_refused(graph):
    with pytest.raises(InputError, match="no calibration data"):
        observe(graph, ["y"], lambda: [])
    with pytest.raises(ExportError, match="no tensor 'z'"):
        observe(graph, ["z"], batches)
