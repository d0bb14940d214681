"""The accuracy contract: how it is written, what it allows, and that lost numbers never pass."""

import numpy as np
import pytest

from perceiver_deploy.data.metrics import TOP1, Metric
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import UsageError
from perceiver_deploy.evaluate.accuracy.agreement import judge_outputs
from perceiver_deploy.evaluate.accuracy.contract import Judgement, MaxDrop
from perceiver_deploy.evaluate.accuracy.losses import measure_losses

ERROR = Metric("error", "px", False, lambda outputs, inputs, targets: np.abs(outputs["x"] - targets))


def one_hot(classes, count=3):
    return {"logits": np.eye(count, dtype=np.float32)[np.asarray(classes, int)]}


def top1_drop(found, eager, targets):
    split = Split({"pixels": np.zeros(len(targets))}, np.asarray(targets))
    return measure_losses(one_hot(found), one_hot(eager), split, [TOP1])[0]


def error_drop(found, eager):
    split = Split({"x": np.zeros(len(found))}, np.zeros(len(found)))
    return measure_losses({"x": np.array(found)}, {"x": np.array(eager)}, split, [ERROR])[0]


def test_a_drop_is_positive_where_outputs_are_worse_whichever_way_the_metric_points():
    lost = top1_drop([0, 1, 2, 0], [0, 1, 2, 1], [0, 1, 2, 1])
    assert (lost.eager, lost.value, lost.drop) == (1.0, 0.75, 0.25)
    assert (lost.test.lost, lost.test.won) == (1, 0)
    assert lost.text().startswith("top-1 accuracy 100.00 % -> 75.00 %, drop 25.00 points (0.00 to ")
    worse = error_drop([2.0, 3.0], [1.0, 1.0])
    assert (worse.drop, worse.test) == (1.5, None)
    assert error_drop([0.5, 1.0], [1.0, 1.0]).drop == -0.25


@pytest.mark.parametrize(
    ("text", "top1_bound", "error_bound"), [("0.5", 0.005, 0.5), ("1%", 0.01 * 0.5, 0.01 * 2), ("0", 0, 0)]
)
def test_points_are_of_the_metrics_unit_and_per_cents_of_eagers_value(text, top1_bound, error_bound):
    contract = MaxDrop.parse(text)
    assert str(contract) == text
    assert contract.bound(top1_drop([0, 0], [0, 1], [0, 0])) == pytest.approx(top1_bound)
    assert contract.bound(error_drop([1.0], [2.0])) == pytest.approx(error_bound)


@pytest.mark.parametrize("text", ["-1", "half", "", "1e", "nan", "1 point"])
def test_what_is_no_drop_is_refused_with_what_was_expected(text):
    with pytest.raises(UsageError, match=r"expected a number that is not negative: 0\.5 .* 1%"):
        MaxDrop.parse(text)


def test_a_drop_of_exactly_the_bound_is_allowed_and_one_row_more_is_not():
    rows, half_a_point = 400, MaxDrop.parse("0.5")
    targets = np.zeros(rows, int)
    two, three = (top1_drop(np.arange(rows) < wrong, targets, targets) for wrong in (2, 3))
    assert half_a_point.allows(two)
    assert not half_a_point.allows(three)
    judged = Judgement({"onnxruntime": [two], "openvino": [three]})
    assert [text.endswith("in openvino") for text in judged.breaches(half_a_point)] == [True]
    assert judged.excess(half_a_point) == pytest.approx(0.0025)


def test_outputs_that_are_no_numbers_have_lost_everything():
    lost = error_drop([np.nan, 0.0], [1.0, 1.0])
    assert lost.drop == np.inf
    assert not MaxDrop(1e9).allows(lost)
    assert Judgement({"onnxruntime": [lost]}).excess(MaxDrop(1.0)) == np.inf


def test_a_class_that_is_the_largest_of_no_numbers_is_no_answer():
    eager = one_hot([0, 0])
    split = Split({"pixels": np.zeros(2)}, np.zeros(2, int))
    for value in (np.nan, np.inf):
        (lost,) = measure_losses({"logits": np.full((2, 3), value, np.float32)}, eager, split, [TOP1])
        assert lost.drop == np.inf


def agreement(outputs, eager, **inputs):
    rows = len(next(iter(eager.values())))
    split = Split(inputs or {"x": np.zeros(rows)}, np.arange(rows))
    return judge_outputs(outputs, eager, split, None)


def test_without_labels_the_drop_of_logits_is_the_share_of_answers_that_differ():
    lost, _ = agreement(one_hot([0, 1, 2, 2]), one_hot([0, 1, 2, 1]))
    assert (lost.eager, lost.value, lost.drop) == (1.0, 0.75, 0.25)


def test_masked_positions_do_not_count_as_answers_that_agree():
    eager = {"logits": np.zeros((2, 4, 3), np.float32)}
    found = {"logits": eager["logits"].copy()}
    found["logits"][0, 0, 1] = 1  # one of two answers that count
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    lost, _ = agreement(found, eager, attention_mask=mask)
    assert lost.drop == pytest.approx((0.5 + 0) / 2)


def test_without_labels_the_drop_of_other_outputs_is_the_relative_error():
    eager = {"flow": np.random.default_rng(0).normal(size=(3, 5, 2))}
    (lost,) = agreement({"flow": 1.01 * eager["flow"]}, eager)
    assert lost.drop == pytest.approx(0.01)
    assert MaxDrop.parse("1%").bound(lost) == MaxDrop.parse("1").bound(lost) == pytest.approx(0.01)
    (nothing,) = agreement({"flow": np.full((3, 5, 2), np.nan)}, eager)
    assert not MaxDrop(100).allows(nothing)


@pytest.mark.parametrize(
    ("change", "sqnr_db"),
    [
        (lambda logits: 2 * logits, 0.0),  # the error is the signal
        (lambda logits: 1.1 * logits + 1e-9, 20.0),
        (lambda logits: 1.2 * logits, 20 * np.log10(5)),
        (lambda logits: 1.05 * logits, 20 * np.log10(20)),
        (lambda logits: logits, 300.0),
        (lambda logits: np.where(logits < logits.max(-1, keepdims=True), -9.0, logits), None),
    ],
)
def test_equal_answers_do_not_make_up_for_class_scores_that_are_not_eagers(change, sqnr_db):
    eager = {"logits": np.random.default_rng(0).normal(size=(50, 7))}
    answers, sqnr = agreement({"logits": change(eager["logits"])}, eager)
    judged = Judgement({"onnxruntime": [answers, sqnr]})
    assert answers.drop == 0
    if sqnr_db is not None:
        assert sqnr.sqnr_db == pytest.approx(sqnr_db)
    kept = sqnr.sqnr_db >= 20
    assert (judged.breaches(MaxDrop(100)) == []) == kept
    assert (judged.excess(MaxDrop(100)) <= 0) == kept


def test_a_breach_of_the_sqnr_names_value_and_bound_and_has_no_part_in_max_drop():
    eager = {"label_logits": np.random.default_rng(0).normal(size=(50, 7))}
    judged = Judgement({"openvino": agreement({"label_logits": 1.5 * eager["label_logits"]}, eager)})
    text = "SQNR of label_logits against eager 6.0 dB (at least 20 dB for any max-drop)"
    assert judged.breaches(MaxDrop(100)) == judged.breaches(MaxDrop(0)) == [f"{text} in openvino"]
    assert judged.lines()[1] == f"openvino: {text}"
    assert judged.to_json()["openvino"][1] == {
        "output": "label_logits",
        "sqnr_db": pytest.approx(20 * np.log10(2)),
        "least_db": 20.0,
    }
    assert judged.excess(MaxDrop(1)) == pytest.approx(0.5 - 0.1)


def test_scores_at_masked_positions_and_of_no_number_in_eager_have_no_part_in_the_sqnr():
    eager = {"logits": np.ones((2, 4, 3))}
    eager["logits"][0, 0, 2] = -np.inf
    found = {"logits": eager["logits"].copy()}
    found["logits"][0, 2:] = 5
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert agreement(found, eager, attention_mask=mask)[1].sqnr_db == 300
    assert agreement(found, eager)[1].sqnr_db < 20
    found["logits"][1, 0, 0] = np.nan
    assert agreement(found, eager, attention_mask=mask)[1].sqnr_db == -300


def test_scores_that_should_be_zero_and_are_not_have_no_signal():
    eager = {"logits": np.zeros((2, 3))}
    assert agreement({"logits": np.full((2, 3), 0.1)}, eager)[1].sqnr_db == -300
    assert agreement(eager, eager)[1].sqnr_db == 300
