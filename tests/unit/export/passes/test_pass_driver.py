"""Passes run in order, dead nodes are swept behind those that fired, and what they promise is checked in tests."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from perceiver_deploy.export.passes import driver
from perceiver_deploy.export.passes.base import GraphPass, PassByWay
from perceiver_deploy.export.passes.driver import run_pass, run_passes
from tests.helpers.graph_passes import model, node, operators, value


class Skip(GraphPass):
    """Lets the readers of a Relu read its input. It leaves the Relu."""

    name = "relus skipped"

    def requires(self, model):
        if not operators(model):
            raise ir.passes.PreconditionError("no nodes")

    def run(self, model):
        found = [each for each in model.graph if each.op_type == "Relu"]
        for relu in found:
            relu.outputs[0].replace_all_uses_with(relu.inputs[0])
        return len(found)

    def ensures(self, model):
        if "Relu" in operators(model):
            raise ir.passes.PostconditionError("a Relu is left")


class Unrecorded(Skip):
    recorded = False


class Idle(Skip):
    name = "idle"

    def run(self, model):
        return 0


class Renames(Skip):
    name = "renames"

    def run(self, model):
        model.graph.outputs[0].name = "z"
        return 0


class ByWay(PassByWay):
    name = "by way"

    def run_by_way(self, model):
        return {"one way": 1, "another": 2}

    def ensures(self, model):
        pass


def relu_then_sigmoid():
    x, h, y = value("x", 2), value("h", 2), value("y", 2)
    return model([x], [y], [node("Relu", [x], h), node("Sigmoid", [h], y)])


def test_what_nothing_reads_is_swept_behind_a_pass_that_fired():
    graph = relu_then_sigmoid()
    assert run_pass(graph, Skip()) == {"relus skipped": 1}
    assert operators(graph) == ["Sigmoid"]


def test_counts_are_recorded_in_the_order_of_the_passes_but_for_those_without_a_record():
    counts = run_passes(relu_then_sigmoid(), [Unrecorded(), ByWay(), Skip()])
    assert list(counts.items()) == [("one way", 1), ("another", 2), ("relus skipped", 0)]
    assert ByWay().run(relu_then_sigmoid()) == 3


def test_a_graph_that_is_not_as_a_pass_ensures_is_an_error():
    with pytest.raises(ir.passes.PostconditionError, match="a Relu is left"):
        run_pass(relu_then_sigmoid(), Idle())


def test_a_graph_that_is_not_as_a_pass_requires_is_an_error():
    x = value("x", 2)
    with pytest.raises(ir.passes.PreconditionError, match="no nodes"):
        run_pass(model([x], [x], []), Skip())


def test_a_pass_that_renames_an_output_is_an_error():
    graph = relu_then_sigmoid()
    run_pass(graph, Skip())
    with pytest.raises(ir.passes.PostconditionError, match=r"renames: inputs and outputs were .*'y'.*, are .*'z'"):
        run_pass(graph, Renames())


def test_users_do_not_wait_for_the_checks(monkeypatch):
    monkeypatch.setattr(driver, "CHECK", False)
    assert run_pass(relu_then_sigmoid(), Idle()) == {"idle": 0}
